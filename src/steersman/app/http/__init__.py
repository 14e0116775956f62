"""The control API over HTTP, on loopback only: the gate, the routes, the words of errors.

Never in here: what a request means (that is `app.control`), a decision, a file of the home.
"""
