"""The run directory: the files through which a driver, a shim, a trainer and a log reader meet.

Standard library only: the shim imports this file and little else. The trainer SDK repeats these names,
for it must run without Steersman installed; a contract test holds the two together.

    <home>/runs/<run>/<rank>/        one rank of one run; 0700
        order.json                   written by the driver before the shim is spawned (no secret in it)
        lock                         held (flock) by the shim for as long as it lives: proof of life
        control                      FIFO: a doorbell; each byte says "read the files again"
        stop.json                    {"cause", "grace_ms", "epoch"}: ask for an end (driver → shim → trainer)
        interval.json                {"interval_ms", "epoch"}: a new checkpoint interval (driver → trainer)
        started.json                 {"pid", "pid_start", "boot_id", "nonce", "shim_pid", "at_ms", "limits"}
        exit.json                    {"exit_code", "signal", "cause", "detail", "at_ms", "stop_delivered"}
        progress.json                {"step", "at_ms", "metrics": {name: number}, "completed"} (trainer)
        logs/                        out.log (program's stdout and stderr), out.log.1 … rotated
    <home>/runs/<run>/output/        STEERSMAN_OUTPUT_DIR
    <home>/checkpoints/<workload>-<generation>/   STEERSMAN_CHECKPOINT_DIR, one per declaration
    <home>/workdirs/<workload>-<generation>/      the declaration's workdir, copied once
    <home>/artifacts/sha256/<hex>    stored artifacts, named by digest
    <home>/doorbell                  Unix datagram socket: any byte says "observe again"

Every JSON file is written whole: a temporary name in the same folder, fsync, rename, fsync of the folder.
A checkpoint is published when its folder ``step-<12 digits>`` exists; it holds the saved files and
``manifest.json`` {"format": 1, "step", "at_ms", "save_ms", "run", "files": {name: {"sha256", "size"}}}.
Its digest is ``sha256:`` of the manifest's bytes.
"""

ORDER = "order.json"
LOCK = "lock"
CONTROL = "control"
STOP = "stop.json"
INTERVAL = "interval.json"
STARTED = "started.json"
EXIT = "exit.json"
PROGRESS = "progress.json"
LOGS = "logs"
LOG_FILE = "out.log"
OUTPUT = "output"
MANIFEST = "manifest.json"
CHECKPOINT_PREFIX = "step-"
CHECKPOINT_DIGITS = 12

ENV_RUN_ID = "STEERSMAN_RUN_ID"
ENV_NODE_RANK = "STEERSMAN_NODE_RANK"
ENV_NUM_NODES = "STEERSMAN_NUM_NODES"
ENV_WORKLOAD = "STEERSMAN_WORKLOAD"
ENV_RUN_DIR = "STEERSMAN_RUN_DIR"
ENV_OUTPUT_DIR = "STEERSMAN_OUTPUT_DIR"
ENV_CHECKPOINT_DIR = "STEERSMAN_CHECKPOINT_DIR"
ENV_CHECKPOINT_INTERVAL_MS = "STEERSMAN_CHECKPOINT_INTERVAL_MS"
ENV_CHECKPOINT_KEEP = "STEERSMAN_CHECKPOINT_KEEP"
ENV_DOORBELL = "STEERSMAN_DOORBELL"
ENV_INPUT_PREFIX = "STEERSMAN_INPUT_"
ENV_CPU_MILLI = "STEERSMAN_CPU_MILLI"

EXIT_YIELDED = 75
"""EX_TEMPFAIL: the trainer saved a checkpoint on notice and wants to be resumed."""
