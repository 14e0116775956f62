"""Who may do what, and what must stay secret: the API token and the sealed secrets of a home.

Never in here: what is allowed to run (that is `decide`), a network, a secret's value in a message or a log.
"""
