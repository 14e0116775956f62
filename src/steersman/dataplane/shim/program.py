"""One child of the shim: the user's setup or run command in its shell.

The child is forked behind a gate. It may not become the program before the shim has put it into its
control group and made ``started.json`` durable, so that a program without a record cannot exist. When the
shim dies first the gate reads end-of-file and the child leaves; afterwards PR_SET_PDEATHSIG ends it.

A shell that waits for a command dies of SIGTERM at once and leaves the command behind, still saving its
checkpoint. The prelude makes it wait for that command and pass its status on instead of going on with the
next line. A status of 0 becomes 143 there, for lines after it may not have run.
"""

# ruff: noqa: PTH118 - pathlib costs every shim 3 ms and 0.5 MB

import errno
import os
import signal
from collections.abc import Mapping
from typing import Any, NamedTuple

from steersman.dataplane.shim import procs
from steersman.ports import run_dir

SHELLS = ("/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/bin/sh")
PRELUDE = """trap '__s=$?; [ "$__s" -ne 0 ] || __s=143; exit "$__s"' TERM; """
GATE_OPEN = b"G"
ERROR_BYTES_MAX = 4_096
EXIT_NOT_BEGUN = 127


class Child(NamedTuple):
    """A forked child. `gate` lets it go on; `error` tells why it could not become the program."""

    pid: int
    gate: int
    error: int


def environment(
    order: Mapping[str, Any], secrets: Mapping[str, str], nonce: str, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The program's variables: inherited, then declared, then secrets, then Steersman's own."""
    result = {name: value for name, value in inherited.items() if not name.startswith("STEERSMAN_")}
    result.update({str(name): str(value) for name, value in order["envs"]})
    result.update(secrets)
    if order["trainer_dir"]:
        rest = result.get("PYTHONPATH", "")
        result["PYTHONPATH"] = f"{order['trainer_dir']}{os.pathsep + rest if rest else ''}"
    result |= {
        run_dir.ENV_RUN_ID: order["run"],
        run_dir.ENV_NODE_RANK: str(order["rank"]),
        run_dir.ENV_NUM_NODES: str(order["num_ranks"]),
        run_dir.ENV_WORKLOAD: order["workload"],
        run_dir.ENV_RUN_DIR: order["rank_dir"],
        run_dir.ENV_OUTPUT_DIR: order["output_dir"],
        run_dir.ENV_CHECKPOINT_DIR: order["checkpoint_dir"],
        run_dir.ENV_CHECKPOINT_KEEP: str(order["checkpoint_keep"]),
        run_dir.ENV_DOORBELL: os.path.join(order["home"], run_dir.DOORBELL),
        run_dir.ENV_CPU_MILLI: str(order["cpu_milli"]),
        run_dir.ENV_NONCE: nonce,
    }
    if order["checkpoint_interval_ms"] is not None:
        result[run_dir.ENV_CHECKPOINT_INTERVAL_MS] = str(order["checkpoint_interval_ms"])
    for name, path in order["inputs"]:
        variable = "".join(letter if letter.isalnum() else "_" for letter in str(name)).upper()
        result[run_dir.ENV_INPUT_PREFIX + variable] = str(path)
    return result


def shell() -> str:
    """The shell that runs the user's commands: bash where there is one."""
    return next((path for path in SHELLS if os.access(path, os.X_OK)), SHELLS[-1])


def fork(script: str, env: Mapping[str, str], cwd: str, output: int) -> Child:
    """Fork a child that waits at its gate; its output goes to the descriptor. Raises OSError."""
    argv = [shell(), "-c", PRELUDE + script]
    gate_read, gate_write = os.pipe()
    error_read, error_write = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(gate_write)
            _become(argv, env, cwd, (output, gate_read, error_write, parent))
        finally:
            os._exit(EXIT_NOT_BEGUN)
    os.close(gate_read)
    os.close(error_write)
    return Child(pid, gate_write, error_read)


def _become(
    argv: list[str], env: Mapping[str, str], cwd: str, wiring: tuple[int, int, int, int]
) -> None:  # pragma: no cover - between fork and exec no coverage can be written
    output, gate, error, parent = wiring
    procs.prctl(procs.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if os.read(gate, 1) != GATE_OPEN:
        return
    try:
        os.chdir(cwd)
        os.execve(argv[0], argv, env)  # noqa: S606 - argv is a shell and the user's own script
    except OSError as failure:
        os.write(error, f"{failure.strerror}: {failure.filename or argv[0]}".encode()[:ERROR_BYTES_MAX])


def release(child: Child) -> str:
    """Open the gate and wait for the exec; the reason when it failed, else nothing."""
    try:
        os.write(child.gate, GATE_OPEN)
    except OSError as failure:
        if failure.errno != errno.EPIPE:
            raise
    os.close(child.gate)
    reason = os.read(child.error, ERROR_BYTES_MAX)
    os.close(child.error)
    return reason.decode("utf-8", "replace")
