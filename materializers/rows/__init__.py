"""Encodings of table rows and change-feed sections, each with a version byte; readers import only this."""
