"""Adapters that act on the world: each applies one action, idempotently, by key.

Never in here: a decision, the journal, the fold, another driver, or an object that does not carry the home
and the run in its name. One heavy SDK is imported in one module, as an extra.
"""
