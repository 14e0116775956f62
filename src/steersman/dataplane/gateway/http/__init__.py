"""HTTP/1.1 kept strict: connections, limits, keys, routes, TLS; a call for the exchange out of each request.

Never in here: a queue of calls, what a model takes, or a replica.
"""
