"""An hour of sending, with everything that goes wrong in a month.

    clients --SMTP--> the service that is killed --SMTP--> its sink, which dies, hangs, comes back
    clients --SMTP--> the service that is spared --SMTP--> its sink, likewise

Both are told to read their configuration again all the time; only the first is killed, for what
leaks shows in a process that lives.  ``make soak`` runs it.
"""
