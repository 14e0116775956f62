"""Does a cycle cost what changed, or what exists? The same number of changes in a small and a large fleet.

    python -m bench.curve

The figure is a ratio of CPU times of one machine, so it says the same on a fast and on a slow one. What is
left of growth is the processor's caches, which a large fleet does not fit, and the logarithm of the indexes.
"""

import json

from bench.cycle import measure as measure_cycle

WORKLOADS_PER_NODE = 10


def measure(
    small: int = 3_000, large: int = 30_000, changes: int = 1_000, cycles: int = 30
) -> dict[str, float]:
    """Median CPU milliseconds of a cycle at both sizes (in nodes), and how much the larger one costs more."""
    figures = {
        nodes: measure_cycle(nodes, cycles, max(changes * 1_000 // (nodes * WORKLOADS_PER_NODE), 1))
        for nodes in (small, large)
    }
    return {
        "cycle_ms_p50_small": figures[small]["cycle_ms_p50"],
        "cycle_ms_p50_large": figures[large]["cycle_ms_p50"],
        "cycle_growth": figures[large]["cycle_ms_p50"] / figures[small]["cycle_ms_p50"],
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
