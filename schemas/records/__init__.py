"""The encodings of what stands in the log."""
