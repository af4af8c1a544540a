"""The text index of items."""
