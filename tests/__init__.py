"""The tests.  ``python -m tests`` runs them all and closes with one line of figures."""
