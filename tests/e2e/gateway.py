"""A gateway in relay mode for one agent, which has its mail in a Maildir."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from .node_agent import Key
from .service import Service

TOP: Final = """\
mode = "relay"
hostname = "laptop.test"
state_dir = "state"
run_dir = "run"

[[listener]]
name = "relay"
kind = "smtp"
port = 0
relay_hosts = ["127.0.0.0/8"]

[relay]
url = "URL"
identity = { agent = "KEY" }
reconnect_base_s = 0.05
reconnect_max_s = 0.5

[domains."agents.test"]
deliver = "maildir"
maildir = "mail/{domain}/{local_part}"
recipients = ["*"]

[retry]
first_s = 0.2
factor = 1.5
max_interval_s = 2

[policy]
authenticate = false

[limits]
free_octets = 0
free_inodes = 0
"""


class Gateway:
    """:param url: of the relay.
    :ivar key: the agent's.
    """

    def __init__(self, stack: ExitStack, url: str, tables: str = "") -> None:
        self.service = Service(top="")
        stack.callback(self.service.close)
        self.key = Key(self.service.folder)
        self._tables = tables
        self.configure(url)

    def configure(self, url: str) -> None:
        top = TOP.replace("URL", url).replace("KEY", self.key.path.name)
        self.service.configure(self._tables, top=top)

    @property
    def address(self) -> str:
        return f"{self.key.identity}@agents.test"

    def mail(self) -> list[bytes]:
        """What is in the agent's Maildir."""
        return self.service.maildir("agents.test", self.key.identity)
