"""The engine: the one loop that observes, folds, decides, validates, records the intent, acts, and records.

Never in here: a policy's choice (that is `decide`), or the name of a concrete adapter (that is `app`).
"""
