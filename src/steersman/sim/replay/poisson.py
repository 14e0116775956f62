"""Poisson arrivals from a series of rates, by seed. The only use of numpy in a replay.

Theory of operation. Between the middles of its intervals a rate is interpolated in straight lines, and each
second draws its arrivals from numpy's `default_rng(seed)`, so that the draws are those of anybody else who
replays the trace with the same seed and generator.
"""

from collections.abc import Sequence

from steersman.model.errors import TraceError

try:
    import numpy as np
except ImportError:  # an extra: most replays need none
    np = None  # type: ignore[assignment]  # the module or nothing


def drawn(middles_s: Sequence[float], rates: Sequence[float], seconds: int, seed: int) -> list[float]:
    """Arrivals in each second. Raises TraceError when numpy is not installed."""
    if np is None:
        raise TraceError(
            "arrivals are drawn from these rates with numpy, which is not installed",
            hint="pip install 'steersman[onnx]', or numpy",
        )
    smooth = np.interp(np.arange(seconds), np.asarray(middles_s), np.asarray(rates))
    counts = np.random.default_rng(seed).poisson(smooth)
    return [float(count) for count in counts]
