"""The tunnel's protocol, without I/O: ``docs/reference/tunnel-protocol.md``."""
