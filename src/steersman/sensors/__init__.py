"""Sensors: the world as events. Each says what it sees and decides nothing.

Never in here: a choice, an effect, or an import of `decide`, `state` or `spec`.
"""
