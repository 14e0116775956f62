"""Recorded history through the live deciders: public traces by problem, and one's own journal.

Never in here: a policy of its own, a bound or a baseline to compare with (those are in bench/), or a silent
skip: what a file holds and is not used is counted by reason.
"""
