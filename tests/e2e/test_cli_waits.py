"""`steer` while it waits, and what a new user met: the control plane goes and comes back, Ctrl-C, narrow
terminals, edited code, ending what does not run."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.steer_process import (
    HELLO,
    LONG,
    STEER,
    environ,
    phases,
    refused,
    running,
    spawned,
    steer,
    steer_json,
    write,
)

from steersman.app.cli.table import STATUS_HEAD

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_ending_what_does_not_run_is_no_error(tmp_path: Path) -> None:
    home = tmp_path / "home"
    run = steer(home, "server", "--stop")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"no control plane runs for the home {home}\n"
    assert steer_json(home, "server", "--stop") is None
    run = steer(home, "down", "--all")
    assert (run.returncode, run.stdout) == (0, "nothing is declared\n")
    assert len(run.stderr.splitlines()) == 1
    assert steer_json(home, "down", "--all")["names"] == []
    assert not home.exists()


def test_what_is_declared_needs_a_control_plane_to_go(fresh: Path) -> None:
    assert steer(fresh, "up", "-", stdin=HELLO.encode()).returncode == 0
    assert steer(fresh, "server", "--stop").returncode == 0
    refused(steer(fresh, "down", "--all"), "no control plane runs for the home")
    assert steer(fresh, "server", "--background").returncode == 0
    assert steer(fresh, "down", "--all").stdout == "hello: gone\n"
    assert steer(fresh, "server", "--stop").returncode == 0
    assert steer(fresh, "down", "--all").returncode == 0


@pytest.mark.parametrize("width", [40, 80])
def test_on_a_narrow_terminal_no_line_wraps_and_no_word_breaks(home: Path, width: int) -> None:
    leader, follower = pty.openpty()
    try:
        run = subprocess.run(
            [*STEER, "status", "hello"],
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=subprocess.PIPE,
            env=environ(home, COLUMNS=str(width), TERM="xterm"),
            timeout=60,
            check=False,
        )
        shown = ESCAPES.sub("", os.read(leader, 65_536).decode()).splitlines()
    finally:
        os.close(follower)
        os.close(leader)
    assert run.returncode == 0, run.stderr
    assert len(shown) == 3  # the head, the row, its rank
    assert all(len(line.rstrip()) <= width for line in shown[:2])
    assert set(shown[0].split()) <= {*STATUS_HEAD}
    assert shown[1].split()[:2] == ["hello", "succeeded"]


def test_watching_ends_with_ctrl_c(home: Path) -> None:
    with spawned(home, ["status", "--watch"]) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("NAME")
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (130, "interrupted\n")


def test_following_ends_with_ctrl_c(home: Path) -> None:
    text = LONG.replace("sleep", "echo begun; sleep")
    assert steer(home, "up", "--no-wait", "-", stdin=text.encode()).returncode == 0
    with spawned(home, ["logs", "-f", "long"]) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (130, "interrupted\n")
    assert steer(home, "down", "long").returncode == 0


def test_ctrl_c_while_waiting_ends_the_waiting_only(home: Path) -> None:
    file = write(home.parent / "long.yaml", LONG)
    with spawned(home, ["up", file]) as child:
        assert child.stderr is not None
        assert "long" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert [line for line in errors.splitlines() if not line.startswith("long:")] == [
        "interrupted; what was declared goes on (steer status; steer stop NAME)"
    ]
    assert phases(home)["long"] == "active"
    assert steer(home, "down", "long").returncode == 0


def test_verbs_that_wait_find_the_next_control_plane(fresh: Path) -> None:
    release = fresh.parent / "release"
    text = f"name: held\nrun: |\n  echo begun\n  until test -e {release}; do sleep 0.1; done\n  echo over\n"
    file = write(fresh.parent / "held.yaml", text)
    assert steer(fresh, "up", "--no-wait", file).returncode == 0
    run = running(fresh, "held")
    with (
        spawned(fresh, ["logs", "-f", "held"]) as logs,
        spawned(fresh, ["up", file]) as up,
        spawned(fresh, ["status", "--watch"]) as status,
    ):
        for child, begins in ((logs, "begun"), (up, "= held: unchanged"), (status, "NAME")):
            assert child.stdout is not None
            assert child.stdout.readline().startswith(begins)
        assert up.stderr is not None
        assert up.stderr.readline().startswith("held:")
        os.kill(json.loads((fresh / "server.json").read_text())["pid"], signal.SIGKILL)
        for child in (logs, up, status):
            assert child.stderr is not None
            assert "looking for it for up to 30 s" in child.stderr.readline()
        assert steer(fresh, "server", "--background").returncode == 0
        release.touch()
        assert logs.communicate(timeout=60) == ("over\n", "")
        out, errors = up.communicate(timeout=60)
        assert "held succeeded\n" in out
        assert "looking for it" not in errors
        assert (logs.returncode, up.returncode) == (0, 0)
        assert status.stdout is not None
        while "succeeded" not in (line := status.stdout.readline()):
            assert line, status.communicate()
    declared = steer_json(fresh, "audit", "--type", "workload-declared")
    assert [each["body"]["workload"]["name"] for each in declared] == ["held"]
    assert run in steer(fresh, "status", "held").stdout


@pytest.mark.parametrize("args", [("logs", "-f", "long"), ("stop", "long"), ("status", "--watch")])
def test_a_control_plane_that_stays_away_has_an_exit_code_of_its_own(
    fresh: Path, args: tuple[str, ...]
) -> None:
    text = "name: long\nrun: |\n  trap '' TERM\n  echo begun; sleep 600 & wait; wait\nstop_duration: 3s\n"
    assert steer(fresh, "up", "--no-wait", "-", stdin=text.encode()).returncode == 0
    running(fresh, "long")
    short = (
        "from steersman.app.cli import main, patient\n"
        "patient.RECONNECT_SECONDS_MAX = 0.5  # not half a minute of the tests' time\n"
        "main()\n"
    )
    try:
        with subprocess.Popen(
            [sys.executable, "-P", "-W", "error", "-c", short, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ(fresh),
        ) as child:
            told = child.stderr if args[0] == "stop" else child.stdout
            assert told is not None
            assert told.readline()
            os.kill(json.loads((fresh / "server.json").read_text())["pid"], signal.SIGKILL)
            _, errors = child.communicate(timeout=60)
        assert child.returncode == 3
        lines = [line for line in errors.splitlines() if not line.startswith("long:")]
        assert [line.split(":")[0] for line in lines[1:]] == ["error", "hint"], errors
        assert "looking for it" in lines[0]
    finally:
        assert steer(fresh, "server", "--background").returncode == 0


def test_edited_code_is_run_by_the_next_up(home: Path) -> None:
    script = write(home.parent / "code" / "main.sh", "echo one\n")
    file = write(home.parent / "coded.yaml", "name: coded\nworkdir: code\nrun: sh main.sh\n")
    assert steer(home, "up", file).returncode == 0
    assert steer(home, "plan", file).returncode == 0
    write(Path(script), "echo two\n")
    planned = steer(home, "plan", file)
    assert planned.returncode == 1
    assert "    workdir: its files changed\n" in planned.stdout
    run = steer(home, "up", file)
    assert run.returncode == 0
    assert "~ coded: changed: a new run\n    workdir: its files changed\n" in run.stdout
    assert "coded: succeeded\n" in run.stderr
    assert steer(home, "logs", "coded").stdout == "two\n"
    assert steer(home, "down", "coded").returncode == 0


def test_a_failed_gang_names_the_rank(fresh: Path) -> None:
    fleet = "kind: fleet\nname: two\nnodes: [{name: n, cpus: 999, memory: 1GB}]\n---\n"
    job = "name: gang\nnum_nodes: 2\nresources: {cpus: 0.1, memory: 64MB}\nstop_duration: 1s\n"
    job += "run: test $STEERSMAN_NODE_RANK = 0 && sleep 60 || exit 4\n"
    run = steer(fresh, "up", "-", stdin=(fleet + job).encode())
    assert run.returncode == 1
    assert "warning: the fleet's local nodes have 999 cores, this machine " in run.stderr
    assert "hint: steer explain gang; steer logs gang --rank 1\n" in run.stderr
    assert steer(fresh, "down", "gang").returncode == 0
