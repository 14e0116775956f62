"""Protocols: what the engine needs of the world. Each docstring is the contract its tests hold it to.

Never in here: an implementation, or an import of anything but the model.
"""
