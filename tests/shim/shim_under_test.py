"""The shim as tests start it: the real one, with faults planted or its coverage measured.

``python shim_under_test.py <options> <the shim's own arguments>``; options, separated by commas: ``cover``
(writes coverage data to $SHIM_COVERAGE), ``no-cgroup``, ``no-subreaper``, ``small-logs``, ``full-disk``
(the first write of exit.json fails), ``no-record`` (no write of started.json succeeds), ``no-second-record``,
``die-before-record`` and ``die-after-record`` (SIGKILL around the write of started.json).
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import coverage

SOURCE = Path(__file__).resolve().parents[2] / "src"


def main() -> None:
    options = sys.argv.pop(1).split(",")
    if "cover" in options:
        folder = Path(os.environ["SHIM_COVERAGE"])
        settings = folder / "shim.toml"
        settings.write_text('[tool.coverage.run]\npatch = ["fork", "_exit"]\n')
        measured = coverage.Coverage(
            data_file=str(folder / ".coverage"),
            data_suffix=True,
            branch=True,
            source=["steersman.dataplane.shim"],
            config_file=str(settings),
        )
        measured.start()
    sys.path.insert(0, str(SOURCE))
    shim(options)
    if "cover" in options:
        measured.stop()
        measured.save()


def shim(options: list[str]) -> None:
    from steersman.dataplane.shim import cgroup, files, finish, logs, procs  # noqa: PLC0415 - coverage first
    from steersman.dataplane.shim import main as entry  # noqa: PLC0415 - coverage first

    if "no-cgroup" in options:
        cgroup.machine_mounts = list
    if "no-subreaper" in options:
        procs.become_subreaper = lambda: False
    if "small-logs" in options:
        assert logs.LogWriter.__init__.__kwdefaults__ is not None
        logs.LogWriter.__init__.__kwdefaults__.update(file_bytes_max=1_000, line_bytes_max=100)
    if "full-disk" in options:
        fill_disk(files, "exit.json", 1)
        finish.WRITE_RETRY_SECONDS = 0.05
    if "no-record" in options:
        fill_disk(files, "started.json", 100)
    if "no-second-record" in options:
        fill_disk(files, "started.json", 100, spared=1)
    for when in ("before", "after"):
        if f"die-{when}-record" in options:
            die(files, after=when == "after")
    entry.main(sys.argv)


def fill_disk(files: Any, name: str, failures: int, spared: int = 0) -> None:
    """Let the first `spared` writes of a file succeed and the next `failures` fail."""
    write, plan = files.write_json, [False] * spared + [True] * failures

    def failing(path: str, value: dict[str, Any]) -> None:
        if path.endswith(name) and plan and plan.pop(0):
            raise OSError(28, "No space left on device")
        write(path, value)

    files.write_json = failing


def die(files: Any, *, after: bool) -> None:
    write = files.write_json

    def dying(path: str, value: dict[str, Any]) -> None:
        if not path.endswith("started.json"):
            write(path, value)
            return
        if after:
            write(path, value)
        os.kill(os.getpid(), signal.SIGKILL)

    files.write_json = dying


if __name__ == "__main__":
    main()
