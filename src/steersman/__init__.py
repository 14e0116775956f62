"""Steersman: one control plane for AI workloads.

Importing this package has no side effect and loads nothing but itself.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
