"""A full mail transfer agent on Twisted."""

from typing import Final

__version__: Final = "0.1.0"
