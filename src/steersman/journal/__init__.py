"""The journal: the append-only, hash-chained log that is the truth of a home, on SQLite or in memory.

Also filtered reading for the audit.
Never in here: what an event means (that is `state`), a decision, a network, or a second way to write.
"""

from steersman.journal.connect import engine_is_safe
from steersman.journal.memory import MemoryJournal
from steersman.journal.query import Query, matching
from steersman.journal.reader import SqliteReader
from steersman.journal.sqlite import SqliteJournal

__all__ = [
    "MemoryJournal",
    "Query",
    "SqliteJournal",
    "SqliteReader",
    "engine_is_safe",
    "matching",
]
