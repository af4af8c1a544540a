"""From text, JSON or Python to one typed query."""
