"""How OpenSSL is told to multiply: by the processor, and only where nobody has said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from protege_mta.multiplying import VARIABLE, WITHOUT_ADX, environment

MILAN = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model name\t: AMD EPYC
flags\t\t: fpu sse2 avx bmi1 avx2 bmi2 rdseed adx sha_ni vaes
power management:

processor\t: 1
vendor_id\t: AuthenticAMD
flags\t\t: fpu
"""


class EnvironmentTests(SynchronousTestCase):
    def made(self, cpuinfo: str, **of: str) -> dict[str, str]:
        path = Path(self.mktemp())
        path.write_text(cpuinfo, "ascii")
        return environment(of, path)

    def test_vectors_are_preferred_on_amds_that_have_both_ways(self) -> None:
        self.assertEqual(self.made(MILAN, HOME="/"), {"HOME": "/", VARIABLE: WITHOUT_ADX})

    def test_what_somebody_has_set_stays(self) -> None:
        self.assertEqual(self.made(MILAN, **{VARIABLE: ""}), {VARIABLE: ""})

    def test_other_processors_are_left_to_openssl(self) -> None:
        for other in (
            MILAN.replace("AuthenticAMD", "GenuineIntel"),
            MILAN.replace("vaes", "avx512ifma"),
            MILAN.replace(" adx", ""),
            MILAN.replace(" avx2", ""),
            "processor\t: 0\nFeatures\t: fp asimd evtstrm aes\n",
            "",
        ):
            self.assertEqual(self.made(other), {})

    def test_a_system_that_says_nothing_is_left_to_openssl(self) -> None:
        self.assertEqual(environment({}, Path(self.mktemp())), {})

    def test_openssl_takes_it_as_it_is_meant(self) -> None:
        ours = environment({}) or {VARIABLE: WITHOUT_ADX}
        self.assertEqual(_second_word(ours), _second_word({}) & ~0x80000)


def _second_word(environment: dict[str, str]) -> int:
    """EBX of CPUID's leaf 7, as the OpenSSL of this Python goes by it."""
    inherited = {name: value for name, value in os.environ.items() if name != VARIABLE}
    said = subprocess.run(
        [sys.executable, "-c", "from OpenSSL import SSL; print(SSL.OpenSSL_version(9).decode())"],
        env={**inherited, **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    if "OPENSSL_ia32cap=" not in said:
        raise SkipTest("no x86 processor")
    return int(said.split("=")[1].split()[0].split(":")[1], 16)
