"""The query engine: reads the tables and indexes that the workers keep, writes none, holds no truth."""
