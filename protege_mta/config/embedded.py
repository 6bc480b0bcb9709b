"""The settings of ``protege-mta run`` without a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .domains import MaildirDomain
from .kinds import Unfit
from .listeners import HttpListener, SmtpListener, SubmissionListener
from .mail_names import MaildirTemplate
from .model import Settings
from .policy import Policy
from .toml import Complaint, ConfigError

FOLDER: Final = Path("protege-mta-data")
"""Where the embedded default keeps its data, from the folder that it is started in."""

DOMAIN: Final = "localhost.test"


def embedded(folder: Path) -> Settings:
    """A whole service on loopback, for trying out and for tests.

    :param folder: where all data goes; made when the service starts.
    :raise ConfigError: the folder's own name cannot be used.
    """
    folder = folder.absolute()
    try:
        maildir = MaildirTemplate().read("mail/{domain}/{local_part}", folder)
    except Unfit as unfit:
        raise ConfigError((Complaint(str(folder), "", f"wanted {unfit.wanted}"),)) from unfit
    return Settings(
        state_dir=folder,
        listeners=(
            SmtpListener(name="smtp", port=2525),
            SubmissionListener(name="submission", port=2587),
            HttpListener(name="http", port=8026),
        ),
        # Nobody but this machine comes in, and it may be without a network.
        policy=Policy(authenticate=False),
        domains={DOMAIN: MaildirDomain(maildir=maildir, recipients=("*",))},
    )
