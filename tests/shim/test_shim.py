"""Real programs under the real shim: what must hold when they misbehave."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.shim.shim_scene import (
    BOTH_WAYS,
    KEY,
    alive,
    control_groups,
    exited,
    loners,
    order,
    output,
    pids_in,
    rank_dir,
    run_to_end,
    scene,
    stop,
    until,
)

from steersman.dataplane.shim import procs
from steersman.drivers.local import LocalDriver
from steersman.model.decisions import Placement
from steersman.model.ids import NodeId
from steersman.model.workload import Artifact, Job
from steersman.ports import run_dir
from steersman.ports.driver import RankKey


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    assert control_groups() == [], "a control group was left behind"


@BOTH_WAYS
def test_a_stop_ends_the_whole_tree(home: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM\n{loners(pids)}\nwhile :; do sleep 0.1; done"

    async def test(driver: LocalDriver) -> None:
        await driver.start(order(Job(run=script)))
        await until(driver, lambda _report: len(pids_in(pids)) == 2)
        assert all(map(alive, pids_in(pids)))
        await driver.stop(stop(200))
        report = await until(driver, exited)
        assert (report.signal, report.stop_delivered) == (9, True)
        assert not any(map(alive, pids_in(pids)))

    scene(home, test, *options)


@BOTH_WAYS
def test_what_an_ended_program_leaves_behind_is_ended(
    home: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    pids = tmp_path / "pids"
    report = run_to_end(home, Job(run=f"{loners(pids)}\nexit 0"), *options)
    assert report.exit_code == 0
    assert len(pids_in(pids)) == 2
    assert not any(map(alive, pids_in(pids)))


def test_without_a_subreaper_it_is_said(home: Path) -> None:
    report = run_to_end(home, Job(run="true"), "no-cgroup", "no-subreaper")
    assert report.limits == "affinity+watchdog+process-group"


HOG = "x = bytearray(300 << 20); x[::4096] = b'x' * len(x[::4096]); input()"
GREEDY = f'{sys.executable} -c "{HOG}" < /dev/zero'


@BOTH_WAYS
def test_too_much_memory_is_ended_and_named(home: Path, options: tuple[str, ...]) -> None:
    placement = Placement(rank=0, node=NodeId("n"), cpu_milli=1000, memory_bytes=64 << 20)
    report = run_to_end(home, Job(run=GREEDY), *options, placement=placement)
    assert report.cause == "memory"
    assert report.exit_code != 0
    if options:
        assert report.limits == "affinity+watchdog"


def test_affinity_follows_the_cores_asked_for(home: Path) -> None:
    run_to_end(
        home, Job(run=f"{sys.executable} -c 'import os; print(len(os.sched_getaffinity(0)))'"), "no-cgroup"
    )
    assert output(home) == "1\n"


def seen_in_arguments(secret: bytes) -> list[int]:
    found = []
    for pid in procs.all_pids():
        try:
            if secret in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:  # it is gone
            continue
    return found


def test_secrets_reach_the_program_and_nothing_else(home: Path) -> None:
    secret = "s3cr3t-" + os.urandom(8).hex()

    async def test(driver: LocalDriver) -> None:
        script = 'printf "%s" "$TOKEN" | sha256sum; exec sleep 600'
        await driver.start(order(Job(run=script), secrets=(("TOKEN", secret),)))
        await until(driver, lambda _report: (rank_dir(home) / "logs" / "out.log").exists())
        assert not seen_in_arguments(secret.encode())

    scene(home, test)
    held = subprocess.run(
        ["sha256sum"], input=secret.encode(), capture_output=True, check=True
    ).stdout.decode()
    assert output(home) == held
    for path in home.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_a_large_secret_is_handed_over_whole(home: Path) -> None:
    many = tuple((f"S{number}", "x" * 100_000) for number in range(3))
    run_to_end(home, Job(run='echo "${#S0} ${#S2}"'), secrets=many)
    assert output(home) == "100000 100000\n"


def test_the_program_sees_its_place_and_its_sdk_but_not_steersman(home: Path, tmp_path: Path) -> None:
    package = tmp_path / "src" / "steersman_trainer"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("NAME = 'sdk'\n")
    (tmp_path / "src" / "steersman").mkdir()
    (tmp_path / "src" / "steersman" / "__init__.py").write_text("")
    source = tmp_path / "work"
    source.mkdir()
    (source / "mine.py").write_text(
        textwrap.dedent("""
        import importlib.util, json, os, steersman_trainer
        seen = {k: v for k, v in os.environ.items() if k.startswith(("STEERSMAN_", "MINE"))}
        seen["sdk"] = steersman_trainer.NAME
        seen["exposed"] = importlib.util.find_spec("steersman") is not None
        seen["cwd"] = os.getcwd()
        print(json.dumps(seen))
        """)
    )
    job = Job(
        run=f"{sys.executable} -S mine.py",
        workdir=str(source),
        envs=(("MINE", "1"), ("PYTHONPATH", "/nowhere")),
    )

    async def test(driver: LocalDriver) -> None:
        start = order(
            job,
            key=RankKey(run=KEY.run, rank=0),
            num_ranks=2,
            checkpoint_interval_ms=5_000,
            input_paths=(("base-model", "/data/base"),),
        )
        await driver.start(start)
        await until(driver, exited)

    stale = {**os.environ, "STEERSMAN_HOME": "/elsewhere"}
    scene(home, test, trainer_path=package, environ=stale)
    seen = json.loads(output(home))
    assert re.fullmatch(r"[0-9a-f]{32}", seen.pop("STEERSMAN_NONCE"))
    assert seen == {
        "MINE": "1",
        "STEERSMAN_RUN_ID": "job.7",
        "STEERSMAN_NODE_RANK": "0",
        "STEERSMAN_NUM_NODES": "2",
        "STEERSMAN_WORKLOAD": "job",
        "STEERSMAN_RUN_DIR": str(rank_dir(home)),
        "STEERSMAN_OUTPUT_DIR": str(home / "runs/job.7/output"),
        "STEERSMAN_CHECKPOINT_DIR": str(home / "checkpoints/job-1"),
        "STEERSMAN_CHECKPOINT_KEEP": "3",
        "STEERSMAN_CHECKPOINT_INTERVAL_MS": "5000",
        "STEERSMAN_DOORBELL": str(home / "doorbell"),
        "STEERSMAN_INPUT_BASE_MODEL": "/data/base",
        "STEERSMAN_CPU_MILLI": "1000",
        "sdk": "sdk",
        "exposed": False,
        "cwd": str(home / "workdirs/job-1"),
    }


def test_output_is_kept_whole_across_a_chatty_program(home: Path) -> None:
    run_to_end(home, Job(run="seq 1 200000; echo err >&2"))
    assert output(home) == "".join(f"{number}\n" for number in range(1, 200_001)) + "err\n"


def test_output_is_rotated(home: Path) -> None:
    run_to_end(home, Job(run="seq 1 2000; head -c 250 /dev/zero | tr '\\0' x"), "small-logs")
    logs = sorted((rank_dir(home) / "logs").glob("out.log*"))
    assert [path.name for path in logs] == ["out.log", "out.log.1", "out.log.2", "out.log.3"]
    kept = "".join(path.read_text() for path in reversed(logs))
    assert kept.endswith("2000\n" + "x" * 100 + "\n" + "x" * 100 + "\n" + "x" * 50)
    assert all(path.stat().st_size < 1_200 for path in logs)


def test_a_full_disk_at_the_end_is_waited_for(home: Path) -> None:
    assert run_to_end(home, Job(run="exit 6"), "full-disk").exit_code == 6


def test_a_command_that_cannot_be_begun_is_told(home: Path) -> None:
    report = run_to_end(home, Job(run="#" + "x" * (200 << 10)))
    assert (report.cause, report.exit_code, report.signal) == ("start-failed", None, None)
    assert "too long" in report.detail


def test_a_missing_artifact_and_one_outside_are_told(home: Path) -> None:
    job = Job(
        run='ln -s /etc/passwd "$STEERSMAN_OUTPUT_DIR/link"; printf ok > "$STEERSMAN_OUTPUT_DIR/good"',
        artifacts=tuple(Artifact(name=name, path=name) for name in ("good", "gone", "link")),
    )
    report = run_to_end(home, job)
    assert [artifact.name for artifact in report.artifacts] == ["good"]
    assert "gone" in report.detail
    assert "outside" in report.detail
    digest = report.artifacts[0].digest.removeprefix("sha256:")
    assert (home / "artifacts" / "sha256" / digest).read_bytes() == b"ok"


def test_a_home_with_a_very_long_path_still_rings(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d" * 60] * 4)
    assert run_to_end(deep, Job(run="exit 2")).exit_code == 2


def test_the_shim_is_nobodys_child_and_in_no_terminals_reach(home: Path) -> None:
    async def test(driver: LocalDriver) -> None:
        await driver.start(order(Job(run="sleep 600")))
        shim = json.loads((rank_dir(home) / "started.json").read_text())["shim_pid"]
        assert shim not in procs.descendants(os.getpid())
        assert os.getsid(shim) != os.getsid(0)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.kill(shim, number)
        await driver.stop(stop(60_000))
        report = await until(driver, exited)
        assert report.exit_code == 143 or report.signal == 15  # its shell may not have begun to read

    scene(home, test)


def test_a_replica_s_setup_does_not_get_its_certificate(home: Path, tmp_path: Path) -> None:
    """The program does, and so do both the other secrets."""
    seen = tmp_path / "seen"
    look = f'echo "$STEERSMAN_REPLICA_KEY$STEERSMAN_REPLICA_CERT$STEERSMAN_REPLICA_CA $TOKEN" >> {seen}'
    secrets = (*((name, "pem") for name in run_dir.REPLICA_SECRETS), ("TOKEN", "t"))
    run_to_end(home, Job(setup=look, run=look), secrets=secrets)
    assert seen.read_text().splitlines() == [" t", "pempempem t"]
