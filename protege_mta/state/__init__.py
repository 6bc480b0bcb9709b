"""State beside the spool: one SQLite file, which this process and others read and write."""
