"""Steersman beside Ray Serve, LitServe, BentoML and MLServer: the same models, one load generator, one table.

What must never be here: anything that `src` imports, and any peer imported into the project's own
environment. Files under `peers/` run in environments of their own, which `environments` makes, and know
nothing of Steersman.
"""
