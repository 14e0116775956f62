"""Settings of the whole suite: how hard the properties search.

Theory: the default profile is derandomised, so that a run of the suite says the same thing twice and a
failure is a bug, not weather; `HYPOTHESIS_PROFILE=nightly` searches a hundred times as long, with fresh
seeds.
"""

import os
import signal
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# Test helpers are imported as `tests.…`, whichever way pytest was started.
_ROOT = str(Path(__file__).parent.parent)
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

# Who starts the suite in the background has SIGINT ignored, and every child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

EXAMPLES = 50
"""Examples of a property in the default profile; a test may ask for a multiple of it."""

_SLOW_IS_FINE = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)

settings.register_profile(
    "default",
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=_SLOW_IS_FINE,
)
settings.register_profile(
    "nightly",
    max_examples=EXAMPLES * 100,
    deadline=None,
    database=None,
    suppress_health_check=_SLOW_IS_FINE,
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
