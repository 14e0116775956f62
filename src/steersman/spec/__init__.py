"""Text to typed declarations, and the difference of two of them.

What it is: the YAML that users write is read to nodes with line numbers (`nodes`), checked against one table
of keys (`keys`) and turned into `model.workload` and `model.fleet` records (`parse`); the same table makes
the JSON Schema for editors (`schema`). `diff` says what changes between two declarations, `digest` names one.

Never in here: opening a file, resolving a path, a clock, the environment, the value of a secret, or any
knowledge of what runs at the moment. The app reads bytes and hands them in.
"""
