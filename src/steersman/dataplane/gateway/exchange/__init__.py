"""Calls in, batches out: queues, batch sizes, credits, the links to replicas, and what came of all of it.

Never in here: HTTP, JSON bodies, or keys.
"""
