"""A TLS handshake in memory."""

from __future__ import annotations

import contextlib

from OpenSSL import SSL


def shake_hands(ours: SSL.Connection, theirs: SSL.Connection) -> None:
    """Between a server's end and a client's, both without a socket; what stands behind the
    handshake, as tickets do, is handed over too.

    :raise SSL.Error: they do not agree.
    """
    ours.set_accept_state()
    theirs.set_connect_state()
    for _ in range(3):
        for one, other in ((theirs, ours), (ours, theirs)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
