"""The views: each a fold of the log, registered in ``materializers.registry``."""
