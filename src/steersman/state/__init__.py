"""State: the pure fold of events into snapshots, the life-cycle tables, the indexes.

Never in here: a choice between alternatives (that is `decide`), a clock, input or output.
"""
