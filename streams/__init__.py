"""The log: its topics, the clients that write and read them, and the embedded single-node log."""
