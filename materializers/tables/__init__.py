"""The table layer: one RocksDB for each worker, fenced checkpoints to changelog topics, restore, change
feed.
"""
