"""Makes ``twistd protege-mta`` known.  Nothing heavy is imported here: twistd loads every plugin."""

from twisted.application.service import ServiceMaker

protege_mta = ServiceMaker(
    "protege-mta",
    "protege_mta.tap",
    "A mail transfer agent: ESMTP server, durable queue, DKIM-signing delivery.",
    "protege-mta",
)
