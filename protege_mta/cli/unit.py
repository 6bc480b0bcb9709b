"""The systemd units, of which ``etc/`` has the packaged form and ``init`` fills in its own."""

from __future__ import annotations

from typing import Final

import attrs

_SERVICE: Final = """\
[Unit]
Description=Protege mail transfer agent
After=network-online.target nss-lookup.target
Wants=network-online.target

[Service]
Type=notify
ExecStart={twistd} --nodaemon --pidfile= protege-mta --config {config}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
# Longer than drain_s, which lets transfers under way come to their end.
TimeoutStopSec=60
LimitNOFILE=65536

{user}
UMask=0077
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
NoNewPrivileges=yes

ProtectSystem=strict
{folders}
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
# No MemoryDenyWriteExecute: OpenSSL's callbacks into Python need memory of that kind.

[Install]
WantedBy=multi-user.target
"""

_PACKAGED_FOLDERS: Final = """\
ProtectHome=yes
PrivateTmp=yes
StateDirectory=protege-mta
StateDirectoryMode=0700
# Ordinary users reach submit.sock in it; control.sock has mode 0600.
RuntimeDirectory=protege-mta
RuntimeDirectoryMode=0755"""


@attrs.frozen
class Unit:
    """What differs from one service unit to the next.

    :ivar twistd: the program, absolute.
    :ivar config: the configuration, absolute.
    :ivar user: lines that say whose the processes are.
    :ivar folders: lines that say where it may write.
    """

    twistd: str
    config: str
    user: str
    folders: str

    def text(self) -> str:
        return _SERVICE.format(
            twistd=_escaped(self.twistd),
            config=_escaped(self.config),
            user=self.user,
            folders=self.folders,
        )


PACKAGED: Final = Unit(
    twistd="/usr/bin/twistd",
    config="/etc/protege-mta/protege-mta.toml",
    user="User=protege-mta\nGroup=protege-mta",
    folders=_PACKAGED_FOLDERS,
)
"""``etc/protege-mta.service``."""


def in_folder(twistd: str, folder: str, user: str, group: str) -> Unit:
    """The unit of a configuration that ``init`` made: everything is in one folder."""
    return Unit(
        twistd=twistd,
        config=f"{folder}/protege-mta.toml",
        user=f"User={user}\nGroup={group}",
        folders="\n".join(
            (
                f"ProtectHome={_unless(folder, '/home', '/root', '/run/user')}",
                f"PrivateTmp={_unless(folder, '/tmp', '/var/tmp')}",
                f"ReadWritePaths={_escaped(folder)}",
            )
        ),
    )


def _unless(folder: str, *roots: str) -> str:
    """Hide the roots from the service, unless its folder is in one of them."""
    return "no" if any(f"{folder}/".startswith(f"{root}/") for root in roots) else "yes"


def _escaped(text: str) -> str:
    """A path as a unit file takes it (systemd.service(5), systemd.unit(5))."""
    text = text.replace("%", "%%").replace("$", "$$")
    if any(c in text for c in " \t\"'\\;"):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text
