"""The nouns: identifiers, amounts, fleet, workloads, events, decisions, reasons, the snapshot.

Pure data and the arithmetic on it. Never in here: a clock, chance, input or output, a policy's choice.
"""
