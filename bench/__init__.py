"""Benchmarks: each module has `measure()`; floors with their source are in floors.toml."""
