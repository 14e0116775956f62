"""The names of the signals on services: what a sensor says, what autoscale reads, what people are shown.

Each name ends with its unit. A signal that is unknown has the value None, which is not zero.
"""

ONGOING = "ongoing_milli"
"""Requests in flight and waiting, the mean over the look-back, in thousandths."""
QUEUED = "queued_milli"
"""Those that wait for a replica, likewise."""
LATENCY = "latency_p99_us"
"""The 99th percentile of the time from a request's arrival to its answer, over the look-back."""
ARRIVALS = "arrivals_milli"
"""Requests a second that came, in thousandths."""
CAPACITY = "capacity_milli"
"""Requests a second that one replica can do, in thousandths, as measured while requests waited for it."""
SERVED = "served_milli"
"""Requests a second that were answered, in thousandths."""
PROMETHEUS = "prometheus_milli#"
"""What declared queries gave, in thousandths: with the place of each in the list of metrics."""


def prometheus(at: int) -> str:
    """The name of the signal of the query at this place."""
    return f"{PROMETHEUS}{at}"
