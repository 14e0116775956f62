"""The run directory: the files through which a driver, a shim, a trainer and a log reader meet.

Standard library only: the shim imports this file and little else. The trainer SDK repeats these names,
for it must run without Steersman installed; a contract test holds the two together.

    <home>/runs/<run>/<rank>/        one rank of one run; 0700
        order.json                   written by the driver before the shim is spawned (no secret in it)
        fence                        held (flock) by a driver while it checks an epoch and acts on this rank
        epoch.json                   {"epoch"}: the highest epoch of any order this rank has accepted
        lock                         held (flock) by the shim for as long as it lives: proof of life
        control                      FIFO: a doorbell; each byte says "read the files again"
        stop.json                    {"cause", "grace_ms", "epoch"}: ask for an end (driver → shim → trainer)
        interval.json                {"interval_ms", "epoch"}: a new checkpoint interval (driver → trainer)
        started.json                 {"pid", "pid_start", "boot_id", "nonce", "shim_pid", "at_ms", "limits",
                                     "phase": "setup" | "run", "cgroups": [folder]}; durable before the
                                     phase's program may run, so: no started.json, no program, ever
        exit.json                    {"exit_code", "signal", "cause", "detail", "at_ms", "stop_delivered",
                                     "artifacts": [{"name", "digest", "size_bytes"}]}; written when the whole
                                     tree is gone and the artifacts are stored, before the lock is dropped
        ready.json, replica.sock     of a replica: see READY, REPLICA_SOCKET and ports.replica_wire
        progress.json                {"step", "at_ms", "metrics": {name: number}, "completed"} (trainer)
        discarded                    an ended rank that was forgotten; only it and logs/ are left
        logs/                        out.log (program's stdout and stderr), out.log.1 … rotated; shim.err
    <home>/runs/<run>/output/        STEERSMAN_OUTPUT_DIR
    <home>/checkpoints/<workload>-<lineage>/         STEERSMAN_CHECKPOINT_DIR, kept over stops and changes
    <home>/workdirs/<workload>-<generation>/      the declaration's workdir, copied once
    <home>/artifacts/sha256/<hex>    stored artifacts, named by digest
    <home>/doorbell                  Unix datagram socket: any byte says "observe again"

Every JSON file is written whole: a temporary name in the same folder, fsync, rename, fsync of the folder.
A checkpoint is published when its folder ``step-<12 digits>`` exists; it holds the saved files and
``manifest.json`` {"format": 1, "step", "at_ms", "save_ms", "run", "files": {name: {"sha256", "size"}}}.
Its digest is ``sha256:`` of the manifest's bytes.
"""

ORDER = "order.json"
FENCE = "fence"
EPOCH = "epoch.json"
LOCK = "lock"
CONTROL = "control"
STOP = "stop.json"
INTERVAL = "interval.json"
STARTED = "started.json"
EXIT = "exit.json"
PROGRESS = "progress.json"
DISCARDED = "discarded"
LOGS = "logs"
LOG_FILE = "out.log"
SHIM_LOG_FILE = "shim.err"
OUTPUT = "output"
RUNS = "runs"
CHECKPOINTS = "checkpoints"
WORKDIRS = "workdirs"
ARTIFACTS = "artifacts"
DOORBELL = "doorbell"
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
ENV_NONCE = "STEERSMAN_NONCE"
"""With ENV_RUN_DIR it marks every process of one start; a stray is ended only when both match."""

CGROUP_PREFIX = "steersman."
"""Control groups are named ``steersman.<home id>.<run>.<rank>``, so that a sweep finds strays."""

READY_STARTED = b"R"
READY_HELD = b"H"
READY_ENDED = b"E"
READY_FAILED = b"!"
"""What a shim answers its spawner, once: the program was begun; another shim lives; the rank has ended;
it could not begin (the reason follows). No answer: the shim died, and a new start may be tried."""

EXIT_YIELDED = 75
"""EX_TEMPFAIL: the trainer saved a checkpoint on notice and wants to be resumed."""

READY = "ready.json"
"""{"at_ms", "load_ms", "address"?}: written by a replica once it answers batches; it rings the doorbell then.
"address" is ``ip:port`` of one that listens on a network."""
REPLICA_SOCKET = "replica.sock"
ENV_REPLICA = "STEERSMAN_REPLICA"
"""What a replica serves, as JSON: {"service", "revision", "kind": "onnx" | "callable", "target", "threads",
"batch_size_max", "batch_timeout_ms", "load_timeout_ms"?, "listen"?: {"address"}}. With "listen" it listens on
that IP address, on a port of the kernel's choice, with the secrets REPLICA_SECRETS, and has no
socket in its folder. The model file of kind onnx is its input ``model``."""
ENV_REPLICA_CERT = "STEERSMAN_REPLICA_CERT"
ENV_REPLICA_KEY = "STEERSMAN_REPLICA_KEY"
ENV_REPLICA_CA = "STEERSMAN_REPLICA_CA"
REPLICA_SECRETS = (ENV_REPLICA_CERT, ENV_REPLICA_KEY, ENV_REPLICA_CA)
"""PEM texts among the secrets of a replica that listens on a network; its setup command does not get them."""
