"""Who may do what: questions in, replies out.  No sockets, no files."""
