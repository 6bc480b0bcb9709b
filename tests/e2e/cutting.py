"""A proxy between two ends that cuts the connections through it, wherever one says."""

from __future__ import annotations

import random
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Final

PIECE: Final = 4096


class CuttingProxy:
    """Hands TCP connections on, each until a number of octets has gone through it.

    :param to: the port to hand them on to, asked for each connection; on loopback.
    :param budget: how many octets the next connection may carry, both directions together; None
        for all.  Called in the proxy's thread.
    :ivar port: where it listens, on 127.0.0.1.
    :ivar cuts: how many connections it has cut.
    """

    def __init__(self, to: Callable[[], int], budget: Callable[[], int | None]) -> None:
        self._to = to
        self._budget = budget
        self.cuts = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._is_over = False
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        self._is_over = True
        # Who sleeps in accept is woken by a connection.
        socket.create_connection(("127.0.0.1", self.port), 5).close()
        self._accepting.join(10)
        self._listening.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            client, _ = self._listening.accept()
            if self._is_over:
                client.close()
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to()), 5)
            except OSError:
                client.close()
                continue
            thread = threading.Thread(
                target=self._carry, args=(client, server, self._budget()), daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _carry(self, client: socket.socket, server: socket.socket, left: int | None) -> None:
        with client, server, selectors.DefaultSelector() as watched:
            watched.register(client, selectors.EVENT_READ, server)
            watched.register(server, selectors.EVENT_READ, client)
            while not self._is_over:
                for key, _ in watched.select(0.1):
                    source: socket.socket = key.fileobj  # type: ignore[assignment]
                    try:
                        octets = source.recv(PIECE)
                        if left is not None:
                            octets, left = octets[:left], left - len(octets)
                        key.data.sendall(octets)
                    except OSError:
                        return
                    if not octets or (left is not None and left <= 0):
                        if left is not None and left <= 0:
                            self.cuts += 1
                        return


def random_budget(rng: random.Random, low: int, high: int) -> Callable[[], int]:
    """Anything between two numbers of octets, small ones as likely as great ones."""
    return lambda: int(low * (high / low) ** rng.random())
