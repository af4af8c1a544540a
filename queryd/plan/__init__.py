"""From a query to a plan: names resolved against the schema, order of stages decided."""
