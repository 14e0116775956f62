"""The shim's parts, each by itself, in process."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steersman.dataplane import shim
from steersman.dataplane.shim import cgroup, files, finish, lost, main, procs, program, store, tree

ORDER: dict[str, Any] = {
    "home": "/h", "home_id": "hid", "run": "job.7", "rank": 0, "num_ranks": 1, "workload": "job",
    "rank_dir": "/h/runs/job.7/0", "output_dir": "/o", "checkpoint_dir": "/c", "checkpoint_keep": 3,
    "checkpoint_interval_ms": None, "inputs": [], "artifacts": [], "envs": [], "trainer_dir": None,
    "cpu_milli": 1000, "memory_bytes": 1 << 20,
}  # fmt: skip


def test_the_shim_imports_only_the_standard_library_and_the_run_dir() -> None:
    command = [*shim.shim_argv(sys.executable)[:-1], "-c"]
    script = (
        f"import sys; sys.argv = ['x']; sys.path.append({str(Path(shim.__file__).parents[3])!r})\n"
        "import steersman.dataplane.shim.main\n"
        "print(*sorted(name for name in sys.modules if '.' not in name or name.startswith('steersman')))"
    )
    loaded = subprocess.run([*command, script], capture_output=True, text=True, check=True).stdout.split()
    ours = [name for name in loaded if name.startswith("steersman")]
    strangers = set(loaded) - set(ours) - sys.stdlib_module_names
    assert strangers <= {"__main__"}
    assert not {"threading", "subprocess", "socket", "pathlib", "hashlib", "asyncio"} & set(loaded)
    assert [name for name in ours if "shim" not in name] == [
        "steersman", "steersman.dataplane", "steersman.ports", "steersman.ports.run_dir",
    ]  # fmt: skip


def test_declared_variables_beat_inherited_ones_and_steersmans_beat_all() -> None:
    order = {**ORDER, "envs": [["A", "declared"], ["STEERSMAN_RUN_ID", "forged"]], "trainer_dir": "/sdk"}
    inherited = {"A": "inherited", "B": "kept", "STEERSMAN_HOME": "x", "PYTHONPATH": "/mine"}
    env = program.environment(order, {"A": "secret"}, "n", inherited)
    assert (env["A"], env["B"], env["STEERSMAN_RUN_ID"]) == ("secret", "kept", "job.7")
    assert env["PYTHONPATH"] == "/sdk:/mine"
    assert "STEERSMAN_HOME" not in env
    assert "STEERSMAN_CHECKPOINT_INTERVAL_MS" not in env
    assert program.environment(order, {}, "n", {})["PYTHONPATH"] == "/sdk"
    assert "PYTHONPATH" not in program.environment(ORDER, {}, "n", {})


@pytest.fixture
def null() -> Iterator[int]:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


def test_a_child_behind_a_closed_gate_never_becomes_the_program(tmp_path: Path, null: int) -> None:
    child = program.fork(f"touch {tmp_path / 'ran'}", {}, "/", null)
    os.close(child.gate)
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == program.EXIT_NOT_BEGUN
    os.close(child.error)
    assert not (tmp_path / "ran").exists()


def test_a_child_that_died_at_the_gate_is_no_error(null: int) -> None:
    child = program.fork("true", {}, "/", null)
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    assert program.release(child) == ""


def test_a_folder_that_is_gone_is_told_by_release(null: int) -> None:
    child = program.fork("true", {}, "/nonexistent", null)
    assert program.release(child) == "No such file or directory: /nonexistent"
    os.waitpid(child.pid, 0)


@pytest.mark.parametrize(
    ("inner", "code"), [("echo; sleep 600", 143), ("trap 'exit 75' TERM; echo; sleep 600 & wait", 75)]
)
def test_the_shell_waits_for_its_command_and_goes_no_further(inner: str, code: int, tmp_path: Path) -> None:
    script = f'{program.PRELUDE}bash -c "{inner}"\ntouch {tmp_path / "after"}'
    command = [program.shell(), "-c", script]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGTERM)
        returned = process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert returned == code
    assert not (tmp_path / "after").exists()


def test_json_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    files.write_json(str(path), {"a": 1})
    assert files.read_json(str(path)) == {"a": 1}

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as planted:
        planted.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            files.write_json(str(path), {"a": 2})
    assert files.read_json(str(path)) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", None])
def test_what_is_no_object_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    assert files.read_json(str(tmp_path / "a")) is None


def test_the_lock_is_held_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_RETRY_SECONDS", 0.0)
    held = files.take_lock(str(tmp_path / "lock"))
    assert held is not None
    assert files.take_lock(str(tmp_path / "lock")) is None
    os.close(held)
    again = files.take_lock(str(tmp_path / "lock"))
    assert again is not None
    os.close(again)


def test_a_ring_is_heard_and_needs_no_listener(tmp_path: Path) -> None:
    files.ring(str(tmp_path / "nowhere"))
    files.ring(str(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
        bell.bind(str(tmp_path / "doorbell"))
        files.ring(str(tmp_path))
        assert bell.recv(8) == b"!"


def test_processes_are_told_apart() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 600 & echo; wait"], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        below = procs.descendants(os.getpid())
        assert shell.pid in below
        children = procs.descendants(shell.pid)
        assert len(children) == 1
        assert procs.resident_bytes([shell.pid, *children, 999_999_999]) > 100_000
        assert isinstance(procs.start_time(shell.pid), int)
        procs.send([*children, shell.pid, 999_999_999], signal.SIGKILL)
    assert procs.start_time(shell.pid) is None
    assert procs.boot_id()


def test_a_zombie_counts_as_gone() -> None:
    with subprocess.Popen(["true"], stdout=subprocess.PIPE) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert procs.start_time(process.pid) is None


def test_marks_must_both_match(tmp_path: Path) -> None:
    env = {"STEERSMAN_RUN_DIR": str(tmp_path), "STEERSMAN_NONCE": "n1"}
    with subprocess.Popen(["sleep", "600"], env=env) as process:
        found = [procs.marked(*mark) for mark in ((str(tmp_path), "n1"), (str(tmp_path), "n2"), ("x", "n1"))]
        process.kill()
    assert found == [[process.pid], [], []]


def test_a_mark_is_seen_in_the_middle_of_an_exec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Popen` returns before the kernel shows the new environment: about one read in five is empty."""
    env = {"STEERSMAN_RUN_DIR": str(tmp_path), "STEERSMAN_NONCE": "n1"}
    for _ in range(100):
        with subprocess.Popen(["sleep", "600"], env=env) as process:
            monkeypatch.setattr(procs, "all_pids", lambda pid=process.pid: [pid])
            found = procs.marked(str(tmp_path), "n1")
            process.kill()
        assert found == [process.pid]


def test_an_exec_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procs, "EXEC_TRIES", 3)
    monkeypatch.setattr(procs, "EXEC_SECONDS", 0)
    monkeypatch.setattr(procs, "_in_exec", lambda _pid: True)
    with subprocess.Popen(["sleep", "600"], env={}) as process:
        monkeypatch.setattr(procs, "all_pids", lambda: [process.pid])
        found = procs.marked("/nowhere", "n1")
        process.kill()
    assert found == []


def test_prctl_is_refused_quietly() -> None:
    assert not procs.prctl(-1, 0)


def test_processors_are_rounded_up_and_within_what_is_allowed() -> None:
    allowed = os.sched_getaffinity(0)
    assert len(tree.processors(1, "a")) == 1
    assert tree.processors(1_000_000, "a") == allowed
    assert tree.processors(1001, "a") <= allowed


def test_a_group_that_cannot_be_joined_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(cgroup.Group):
        def attach(self, pid: int) -> None:
            raise OSError(13, "Permission denied")

    monkeypatch.setattr(cgroup, "create", lambda *_rest: Closed(2, ()))
    made = tree.Tree(ORDER, [], subreaper=True)
    assert made.limits == "cgroup-v2"
    with subprocess.Popen(["sleep", "600"]) as process:
        made.hold(process.pid)
        assert len(os.sched_getaffinity(process.pid)) == 1
        process.kill()
    assert made.limits == "affinity+watchdog"
    assert made.watched
    assert made.folders == ()
    assert made.remove()


def test_a_group_that_will_not_go_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "REMOVE_SECONDS_MAX", 0.0)
    (tmp_path / "child").mkdir()
    assert not tree.remove_group(cgroup.Group(1, (str(tmp_path),)))


def test_the_lost_of_an_earlier_boot_are_not_looked_for() -> None:
    record = lost.conclude(ORDER, {"boot_id": "other", "nonce": "", "cgroups": ["/sys/fs/cgroup/pids"]})
    assert (record["cause"], record["detail"]) == ("lost", "the machine was restarted")


def test_only_groups_of_that_very_name_are_emptied(tmp_path: Path) -> None:
    own = tmp_path / "steersman.hid.job.7.0"
    for folder in (own, tmp_path / "other"):
        folder.mkdir()
    with subprocess.Popen(["sleep", "600"]) as stranger:
        (tmp_path / "other" / "cgroup.procs").write_text(f"{stranger.pid}\n")
        started = {"boot_id": procs.boot_id(), "cgroups": [str(tmp_path / "other"), str(own)]}
        assert lost.conclude(ORDER, started)["cause"] == "lost"
        assert stranger.poll() is None
        stranger.kill()


def test_what_is_begun_during_a_look_is_found_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([[], [4711], [], []])
    monkeypatch.setattr(procs, "marked", lambda *_mark: next(looks))
    assert [lost.survivors("/rank", "n1", None) for _ in range(2)] == [[4711], []]


def test_artifacts_are_stored_by_digest_and_problems_told(tmp_path: Path) -> None:
    output, kept = tmp_path / "output", tmp_path / "store"
    (output / "folder").mkdir(parents=True)
    (output / "a").write_bytes(b"x" * (store.CHUNK_BYTES + 1))
    os.mkfifo(output / "pipe")
    names = ["a", "folder", "pipe", "gone", "../../etc/passwd", "/etc/passwd"]
    answer = store.store_all(
        {"output": str(output), "store": str(kept), "artifacts": [[name, name] for name in names]}
    )
    (stored,) = answer["artifacts"]
    assert stored["size_bytes"] == store.CHUNK_BYTES + 1
    file = kept / stored["digest"].removeprefix("sha256:")
    assert file.read_bytes() == (output / "a").read_bytes()
    assert file.stat().st_mode & 0o777 == 0o400
    assert len(answer["problems"]) == 5
    assert [path.name for path in kept.iterdir()] == [file.name]


def test_a_store_that_dies_is_a_problem_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setattr(finish, "STORE_FILE", str(tmp_path / "broken.py"))
    answer = finish.store({**ORDER, "home": str(tmp_path), "artifacts": [["a", "a"]]})
    assert answer["artifacts"] == []
    assert "status" in answer["problems"][0]


def test_an_end_that_can_never_be_written_is_an_error(tmp_path: Path) -> None:
    order = {**ORDER, "home": str(tmp_path), "rank_dir": str(tmp_path / "gone")}
    with pytest.raises(FileNotFoundError):
        finish.finish(order, {"cause": "lost", "exit_code": None, "detail": ""})


@pytest.mark.parametrize("data", [b"", b'{"secrets": [["A", "b', b"[]"])
def test_a_payload_cut_short_begins_nothing(data: bytes) -> None:
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    assert main.read_payload(read) is None


def ready() -> tuple[main.Ready, int]:
    read, write = os.pipe()
    return main.Ready(write), read


@pytest.mark.parametrize(
    ("present", "answer"),
    [({}, b"!order.json is missing or damaged"), ({"exit.json": {}}, b"E")],
    ids=["no order", "ended"],
)
def test_a_shim_with_nothing_to_do_says_why(tmp_path: Path, present: dict[str, Any], answer: bytes) -> None:
    for name, value in present.items():
        (tmp_path / name).write_text(json.dumps(value))
    told, read = ready()
    main.run(str(tmp_path), {"secrets": []}, told)
    told.say(b"again")
    assert os.read(read, 100) == answer
    os.close(read)


def test_a_second_shim_leaves_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_RETRY_SECONDS", 0.0)
    held = files.take_lock(str(tmp_path / "lock"))
    assert held is not None
    told, read = ready()
    main.run(str(tmp_path), {"secrets": []}, told)
    assert os.read(read, 100) == b"H"
    os.close(read)
    os.close(held)


def test_a_spawner_that_is_gone_is_no_matter() -> None:
    told, read = ready()
    os.close(read)
    told.say(b"R")
