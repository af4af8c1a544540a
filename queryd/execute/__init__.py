"""Source, Filter, Hydrator, Scorer, Selector: one vocabulary, composed by the plan."""
