"""How fast it is, beside Postfix on the same machine in the same run: ``python -m bench``.

Postfix's own ``smtp-source`` sends through the server under test to its ``smtp-sink``; rates are
taken until the sink has everything.  Machines differ and change by the minute, so the servers take
turns, round by round, and what counts is the ratio.  Everything is on loopback, in folders and on
ports of its own, and is stopped at the end.
"""
