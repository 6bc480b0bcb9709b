"""The tests.  ``python -m tests`` runs them all and closes with one line of figures."""

import os

# trial's workers get a PYTHONPATH; the programs that tests start shall find us by themselves.
os.environ.pop("PYTHONPATH", None)
