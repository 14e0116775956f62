"""Decisions and refusals in words: what happened, why, what is in the way, and the nearest fix.

Pure: reads snapshots, decisions and events; makes text and records. Never in here: a choice, a clock, a
terminal's colours, input or output.
"""
