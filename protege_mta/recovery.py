"""What happens between a house being built and its doors being opened: what was there comes back."""

from __future__ import annotations

from .compose import House


def recover(house: House) -> int:
    """Bring back what was there, and tell what a crash kept from the journal.  Blocks.

    :return: how many messages were in the queue.
    :raise SpoolLocked: by another process.  :raise OSError:  :raise StateFailed: it cannot be read.
    """
    house.spool.acquire()
    house.database.open()
    house.journal.open()
    house.returns.start()  # before anything is routed
    count = 0
    for found in house.requests.restore(house.spool.recover()):
        house.enrolment.recovered(found)
        count += 1
    house.journal.recover(house.spool.recover_events(house.journal.synced()))
    house.journal.start()
    return count
