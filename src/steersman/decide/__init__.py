"""The deciders: pure functions from a snapshot to decisions, one module each, strangers to one another.

Never in here: a clock, chance, memory between calls, input or output. `cycle` alone knows the others.
"""
