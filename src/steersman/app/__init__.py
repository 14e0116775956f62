"""The composition root: settings, wiring, the server, the control API and the command line.

Every process entry point is here and is the only place that reads its environment and arguments. Never in
here: a decision, a fold, a format of the journal. What needs thought belongs to a package below; what is
here binds those packages together and puts words and records at the edges.
"""
