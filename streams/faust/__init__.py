"""The Faust application: whole partition batches in, offsets acknowledged by checkpoints alone."""
