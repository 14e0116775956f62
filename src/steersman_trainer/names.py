"""File names and environment variables shared with the control plane.

They are copies of steersman.ports.run_dir, which this package must not import; a contract test in the
project's own tree holds the two together.
"""

from __future__ import annotations

STOP = "stop.json"
INTERVAL = "interval.json"
PROGRESS = "progress.json"
MANIFEST = "manifest.json"
CHECKPOINT_PREFIX = "step-"
CHECKPOINT_DIGITS = 12

ENV_RUN_ID = "STEERSMAN_RUN_ID"
ENV_NODE_RANK = "STEERSMAN_NODE_RANK"
ENV_NUM_NODES = "STEERSMAN_NUM_NODES"
ENV_RUN_DIR = "STEERSMAN_RUN_DIR"
ENV_CHECKPOINT_DIR = "STEERSMAN_CHECKPOINT_DIR"
ENV_CHECKPOINT_INTERVAL_MS = "STEERSMAN_CHECKPOINT_INTERVAL_MS"
ENV_CHECKPOINT_KEEP = "STEERSMAN_CHECKPOINT_KEEP"
ENV_DOORBELL = "STEERSMAN_DOORBELL"

EXIT_YIELDED = 75
