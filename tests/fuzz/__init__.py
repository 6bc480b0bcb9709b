"""Functions that take any octets and complain where a promise is broken.

Each target runs under atheris (guided by coverage), under a runner of ours that needs nothing but
Python, and over the files in ``tests/corpora/fuzz``, which hold what once broke it.  ``make fuzz``
runs all of them; this package imports nothing, so that a runner can instrument what follows.
"""
