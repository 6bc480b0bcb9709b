"""What ``250`` promises, against SIGKILL.

    clients --SMTP--> protege-mta run --SMTP--> a sink that fails and cuts at random
                      killed 50 times

After the last kill everything drains, and every 250 is accounted for: delivered unaltered, or
bounced, once, unless a cut or a kill came between a delivery and the news of it.
"""

from __future__ import annotations

import os
import time
from typing import Final

from .killed import KilledTestCase
from .load import Load

ROUNDS: Final = int(os.environ.get("KILL_ROUNDS", "50"))


class KillTests(KilledTestCase):
    def round(self, name: str) -> None:
        """Start, take mail in and deliver it, be killed."""
        self.service.start()
        load = Load(self.service.port("relay"), name, self.rng, self.sent)
        time.sleep(self.rng.uniform(0.2, 1.5))
        self.kill()
        load.wait()

    def test_killed_at_work(self) -> None:
        """None lost, none altered, none invented, whenever it is killed."""
        for number in range(ROUNDS):
            self.round(str(number))
        self.settle(f"{ROUNDS} rounds")

    def test_killed_while_it_recovers(self) -> None:
        """Being killed again and again before it is up does no harm to what was accepted."""
        rounds = max(1, ROUNDS // 6)
        for number in range(rounds):
            self.round(str(number))
            for _ in range(3):
                self.service.launch()
                time.sleep(self.rng.uniform(0.4, 1.4))
                self.kill()
        self.settle(f"{rounds} rounds with kills while it recovers")
