"""The shards: what turns a partition's records into batches for the views, and back into positions."""
