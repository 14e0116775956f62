"""A world that is not there: virtual time and simulated drivers, for tests, chaos and replay.

Never in here: real time, real processes, chance without a seed, or a rule of its own: what is simulated
passes the same contract tests as the real thing.
"""
