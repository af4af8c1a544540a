"""The vector index of items."""
