"""The verbs of `steer`, as a person types them: answers, exit codes, and what goes wrong."""

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.steer_process import (
    HELLO,
    LONG,
    STEER,
    control_plane,
    environ,
    phases,
    refused,
    running,
    spawned,
    steer,
    steer_json,
    write,
)

import steersman
from steersman.app.cli.root import VERBS

# Without a control plane.


def test_help_names_every_verb(tmp_path: Path) -> None:
    run = steer(tmp_path / "home", "--help")
    assert run.returncode == 0
    for name, verb in VERBS.items():
        assert not verb.words or f" {name} " in run.stdout
    assert steer(tmp_path / "home").stdout == run.stdout
    assert steer(tmp_path / "home", "--version").stdout == f"steersman {steersman.__version__}\n"
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_and_the_common_options(tmp_path: Path, verb: str) -> None:
    inner = {"secret": ["set", "list", "rm"], "key": ["create", "list", "revoke"], "policy": ["show", "set"]}
    names = inner.get(verb, [""])
    for name in names:
        run = steer(tmp_path / "home", *[verb, *([name] if name else []), "--help"], COLUMNS="200")
        assert run.returncode == 0
        assert "--home" in run.stdout
        assert "--json" in run.stdout


@pytest.mark.parametrize(
    "args",
    [
        ("status",),
        ("queue",),
        ("logs", "a"),
        ("explain", "a"),
        ("stop", "a"),
        ("down", "a"),
        ("down", "--all", "a"),
    ],
)
def test_verbs_that_need_a_control_plane_say_so(tmp_path: Path, args: tuple[str, ...]) -> None:
    refused(steer(tmp_path / "home", *args), "no control plane runs for the home")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "args", [("statsu",), ("status", "--nope"), ("logs",), ("audit", "--limit", "x"), ("up",)]
)
def test_wrong_usage(tmp_path: Path, args: tuple[str, ...]) -> None:
    refused(steer(tmp_path / "home", *args), "", code=2)


def test_errors_can_be_json(tmp_path: Path) -> None:
    run = steer(tmp_path / "home", "status", "--json")
    assert run.returncode == 1
    assert json.loads(run.stderr)["error"]["code"] == "no-server"


def test_the_schema(tmp_path: Path) -> None:
    assert steer_json(tmp_path / "home", "schema")["title"] == "Steersman declaration"


def test_the_doctor_without_a_home(tmp_path: Path) -> None:
    checks = {check["name"]: check for check in steer_json(tmp_path / "home", "doctor")["checks"]}
    assert checks["home"]["state"] == checks["sqlite"]["state"] == "ok"
    assert not (tmp_path / "home").exists()


def test_a_home_open_to_others_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)
    file = write(tmp_path / "a.yaml", HELLO)
    for args in (("up", file), ("status",), ("secret", "list"), ("audit",)):
        refused(steer(home, *args), "open to other users")
    refused(steer(home, "plan", file), "open to other users", code=255)
    assert list(home.iterdir()) == []


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    write(tmp_path / "file", "")
    run = steer(tmp_path / "home", "up", "--home", str(tmp_path / "file" / "home"), "-", stdin=HELLO.encode())
    refused(run, "cannot make the home")


# Declarations.


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"name: a\nrunn: x\n", "'runn' is not a key"),
        (b"name: a\nname: b\nrun: x\n", "name"),
        (b"name: a\nrun: \xff\n", "UTF-8"),
        (b"", "nothing is declared"),
        (b"name: a/b\nrun: x\n", "name"),
        (b"name: 'a\\eb'\nrun: x\n", "name"),
        (b"x" * 2_000_000, "large"),
        (b"name: a\nrun: x\nresources: {cpus: -1}\n", "cpus"),
        (b"name: a\nrun: x\nworkdir: nowhere\n", "workdir"),
    ],
    ids=range(9),
)
def test_bad_declarations_are_refused_by_plan_and_up(home: Path, data: bytes, words: str) -> None:
    before = steer_json(home, "audit", "--type", "workload-declared")
    refused(steer(home, "plan", "-", stdin=data), words, code=255)
    refused(steer(home, "up", "-", stdin=data), words)
    assert steer_json(home, "audit", "--type", "workload-declared") == before


def test_files_that_cannot_be_read(home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(steer(home, "up", str(tmp_path / "none.yaml")), "No such file")
    refused(steer(home, "plan", str(tmp_path / "none.yaml")), "No such file", code=255)
    refused(steer(home, "up", str(tmp_path / "empty")), "holds no *.yaml")


def test_a_plan_without_a_server_changes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    folder = tmp_path / "jobs"
    write(folder / "a.yaml", "run: echo a\n")
    write(folder / "b.yml", "run: echo b\n")
    write(folder / "c.txt", "not: [read\n")
    found = steer_json(home, "plan", str(folder), code=1)
    assert [(each["name"], each["kind"]) for each in found["workloads"]] == [
        ("a", "created"),
        ("b", "created"),
    ]
    assert {each["kind"] for each in found["decisions"]} == {"admit", "start"}
    assert not home.exists()


def test_a_plan_tells_the_same_with_and_without_a_server(fresh: Path) -> None:
    other = write(fresh.parent / "other.yaml", "name: other\nrun: echo 2\n")
    hello = write(fresh.parent / "hello.yaml", HELLO)
    assert steer(fresh, "up", hello).returncode == 0
    with_server = steer_json(fresh, "plan", other, code=1), steer_json(fresh, "plan", hello)
    assert steer(fresh, "server", "--stop").returncode == 0
    without = steer_json(fresh, "plan", other, code=1), steer_json(fresh, "plan", hello)
    for one, two in zip(with_server, without, strict=True):
        assert one["workloads"] == two["workloads"]
        assert [each["kind"] for each in one["decisions"]] == [each["kind"] for each in two["decisions"]]
    assert with_server[1]["changed"] is without[1]["changed"] is False


def test_up_again_changes_nothing(home: Path) -> None:
    before = steer_json(home, "audit", "--type", "workload-declared", "--subject", "hello")
    run = steer(home, "up", "-", stdin=HELLO.encode())
    assert run.returncode == 0
    assert "= hello: unchanged" in run.stdout
    assert steer(home, "plan", "-", stdin=HELLO.encode()).returncode == 0
    assert steer(home, "plan", "-", stdin=HELLO.replace("echo", "echo 2").encode()).returncode == 1
    assert steer_json(home, "audit", "--type", "workload-declared", "--subject", "hello") == before


def test_what_asks_for_too_much_is_pending_with_the_fix(home: Path) -> None:
    text = "name: huge\nrun: x\nresources: {cpus: 9000}\n"
    run = steer(home, "apply", "-", stdin=text.encode())
    assert run.returncode == 0, run.stderr
    assert "huge is pending" in run.stdout
    explained = steer(home, "explain", "huge").stdout
    assert "9000 cores" in explained
    assert "fix" in explained
    assert "huge" in steer(home, "queue").stdout
    assert [row["name"] for row in steer_json(home, "queue")["waiting"]] == ["huge"]
    assert steer(home, "down", "huge").returncode == 0
    assert "huge" not in phases(home)


def test_a_failing_job(home: Path) -> None:
    run = steer(home, "up", "-", stdin=b"name: bad\nrun: echo oops; exit 3\n")
    assert run.returncode == 1
    assert "bad failed: exited with 3" in run.stdout
    assert steer(home, "logs", "bad").stdout == "oops\n"
    assert "exited with 3" in steer(home, "explain", "bad").stdout
    assert steer(home, "down", "bad").returncode == 0


# Looking.


def test_looking_at_what_ended(home: Path) -> None:
    assert steer(home, "logs", "hello").stdout == "hello\n"
    assert steer(home, "logs", "-f", "hello").stdout == "hello\n"
    (row,) = [row for row in steer_json(home, "status")["workloads"] if row["name"] == "hello"]
    assert (row["phase"], row["settled"], row["runs"]) == ("succeeded", True, 1)
    assert "hello  succeeded" in steer(home, "status").stdout
    assert steer_json(home, "explain", "hello")["moments"]
    refused(steer(home, "logs", "helo"), "there is no workload called 'helo'")
    assert "did you mean 'hello'?" in steer(home, "explain", "helo").stderr
    refused(steer(home, "logs", "hello", "--rank", "7"), "has no rank 7")
    refused(steer(home, "logs", "../token"), "")
    refused(steer(home, "logs", "hello", "--run", "../../x"), "not the name of a run")


def test_control_characters_never_reach_the_terminal(home: Path) -> None:
    text = "name: paint\nrun: |\n  printf 'a\\033[2Jb\\rc\\a\\302\\233\\342\\200\\256d\\n'\n"
    assert steer(home, "up", "-", stdin=text.encode()).returncode == 0
    shown = steer(home, "logs", "paint").stdout
    assert shown == "a\\u001b[2Jb\nc\\u0007\\u009b\\u202ed\n"
    assert steer(home, "down", "paint").returncode == 0


def test_the_audit(home: Path) -> None:
    entries = steer_json(home, "audit", "--subject", "hello")
    assert [entry["position"] for entry in entries] == sorted(entry["position"] for entry in entries)
    assert {"workload-declared", "decided", "rank-started", "rank-exited"} <= {e["type"] for e in entries}
    (only,) = steer_json(home, "audit", "--type", "home-created")
    assert only["position"] == 1
    paged = steer_json(home, "audit", "--limit", "3", "--from", "2")
    assert [entry["position"] for entry in paged] == [2, 3, 4]
    last = steer_json(home, "audit")[-1]["position"]
    assert [entry["position"] for entry in steer_json(home, "audit", "--limit", "2")] == [last - 1, last]
    run = steer(home, "audit", "--limit", "2")
    assert len(run.stdout.splitlines()) == 2
    assert "read all of them with --from 1" in run.stderr
    assert "go on with --from 3" in steer(home, "audit", "--from", "1", "--limit", "2").stderr
    assert steer(home, "audit", "--from", str(last)).stderr == ""
    refused(steer(home, "audit", "--type", "nonsense"), "no event is of the type")
    verified = steer_json(home, "audit", "--verify")
    assert verified["problems"] == []
    assert verified["rows"] == verified["position"]


def test_on_a_terminal_the_table_is_drawn(home: Path) -> None:
    leader, follower = pty.openpty()
    try:
        run = subprocess.run(
            [*STEER, "status"],
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=subprocess.PIPE,
            env=environ(home, COLUMNS="200", TERM="xterm"),
            timeout=60,
            check=False,
        )
        shown = os.read(leader, 65_536).decode()
    finally:
        os.close(follower)
        os.close(leader)
    assert run.returncode == 0, run.stderr
    assert "hello" in shown
    assert "succeeded" in shown


def test_following_goes_on_into_the_next_run(home: Path) -> None:
    retry = "retry: {on_events: [error], attempts: 2}"
    text = f"name: twice\n{retry}\nrun: |\n  echo try; sleep 2; echo fails; exit 1\n"
    assert steer(home, "up", "--no-wait", "-", stdin=text.encode()).returncode == 0
    run = steer(home, "logs", "-f", "twice")
    assert (run.returncode, run.stdout) == (0, "try\nfails\n" * 2)
    assert run.stderr.startswith("[run twice.")
    lines = [json.loads(line) for line in steer(home, "logs", "twice", "--json").stdout.splitlines()]
    assert "".join(line["text"] for line in lines) == "try\nfails\n"
    assert steer(home, "down", "twice").returncode == 0


def test_one_workload_whole(home: Path) -> None:
    assert steer_json(home, "status", "hello")["last_run"]["ranks"][0]["exit_code"] == 0
    assert "rank 0" in steer(home, "status", "hello").stdout
    refused(steer(home, "status", "helo"), "there is no workload called 'helo'")


def test_the_doctor_in_words(home: Path) -> None:
    run = steer(home, "doctor")
    assert run.returncode == 0, run.stdout
    assert "127.0.0.1:" in run.stdout
    assert "sqlite" in run.stdout


# Acting.


def test_stop_and_up_again_and_down(home: Path) -> None:
    assert steer(home, "up", "--no-wait", "-", stdin=LONG.encode()).returncode == 0
    run = steer(home, "stop", "long")
    assert (run.returncode, run.stdout) == (0, "long: stopped\n")
    assert (
        steer_json(home, "plan", write(home.parent / "long.yaml", LONG), code=1)["workloads"][0]["kind"]
        == "again"
    )
    assert steer(home, "up", "--no-wait", str(home.parent / "long.yaml")).returncode == 0
    assert phases(home)["long"] in {"declared", "queued", "active"}
    before = phases(home)
    refused(steer(home, "down", "long", "nobody"), "there is no workload called 'nobody'")
    assert phases(home).keys() == before.keys()
    refused(steer(home, "down"), "give either")
    refused(steer(home, "down", "--all", "long"), "give either")
    run = steer(home, "down", "long")
    assert (run.returncode, run.stdout) == (0, "long: gone\n")
    assert "long" not in phases(home)
    refused(steer(home, "stop", "long"), "there is no workload called 'long'")


def test_secrets(home: Path) -> None:
    assert steer(home, "secret", "set", "TOKEN", stdin=b"s3cr3t value\n").returncode == 0
    assert steer_json(home, "secret", "list") == ["TOKEN"]
    text = "name: secretive\nrun: test ${#TOKEN} -eq 12\nsecrets: [TOKEN]\n"
    run = steer(home, "up", "-", stdin=text.encode())
    assert run.returncode == 0, run.stdout + run.stderr
    for path in home.rglob("*"):
        if path.is_file():
            assert b"s3cr3t value" not in path.read_bytes(), path
    assert steer(home, "secret", "rm", "TOKEN").returncode == 0
    refused(steer(home, "secret", "rm", "TOKEN"), "no secret called 'TOKEN'")
    refused(steer(home, "secret", "set", "../x", stdin=b"v"), "not a name for a secret")
    refused(steer(home, "secret", "set", "EMPTY", stdin=b""), "would be empty")
    refused(steer(home, "up", "-", stdin=text.replace("secretive", "again").encode()), "is not set")


# The control plane itself.


def test_a_second_control_plane_is_refused(home: Path) -> None:
    pid = json.loads((home / "server.json").read_text())["pid"]
    refused(steer(home, "server"), f"another control plane (pid {pid})")
    assert json.loads((home / "server.json").read_text())["pid"] == pid
    assert phases(home)["hello"] == "succeeded"


def test_a_port_that_is_taken_is_replaced(fresh: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = steer(fresh, "server", "--background", "--port", str(port))
    assert run.returncode == 0, run.stderr
    chosen = json.loads((fresh / "server.json").read_text())["port"]
    assert chosen != port
    assert f"127.0.0.1:{chosen}" in run.stdout
    assert f"port {port} is taken; listening on {chosen}\n" in run.stderr
    again = steer(fresh, "server", "--background", "--port", str(port))
    assert again.stderr == f"the control plane runs already; listening on {chosen}\n"


def test_work_goes_on_and_is_adopted_after_kill_9(fresh: Path) -> None:
    file = write(fresh.parent / "long.yaml", LONG)
    assert steer(fresh, "up", "--no-wait", file).returncode == 0
    run = running(fresh, "long")
    os.kill(json.loads((fresh / "server.json").read_text())["pid"], signal.SIGKILL)
    refused(steer(fresh, "status"), "no control plane runs")
    assert steer_json(fresh, "audit", "--verify")["problems"] == []
    assert steer(fresh, "up", "--no-wait", file).returncode == 0
    assert running(fresh, "long") == run
    assert json.loads((fresh / "server.json").read_text())["epoch"] == 2


def test_a_clean_end_leaves_no_server_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with control_plane(home) as port:
        assert (home / "server.json").exists()
        assert port
    assert not (home / "server.json").exists()
    refused(steer(home, "status"), "no control plane runs")


def test_an_open_request_does_not_hold_up_the_end(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with contextlib.ExitStack() as stack:
        with control_plane(home) as port:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            token = (home / "token").read_text().strip()
            request = "GET /v1/status?after=99999&wait_ms=10000 HTTP/1.1\r\nHost: localhost\r\n"
            connection.sendall(f"{request}Authorization: Bearer {token}\r\n\r\n".encode())
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            idle.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(100).startswith(b"HTTP/1.1 200")
        while connection.recv(65_536):
            pass


def test_ctrl_c_ends_the_foreground_server_cleanly(tmp_path: Path) -> None:
    with spawned(tmp_path / "home", ["server"]) as child:
        assert child.stdout is not None
        assert "127.0.0.1" in child.stdout.readline()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert errors == "the control plane has ended; work goes on without it\n"


def test_two_homes_side_by_side(tmp_path: Path) -> None:
    homes = [tmp_path / name / "home" for name in ("a", "b")]
    with contextlib.ExitStack() as stack:
        ports = []
        for index, home in enumerate(homes):
            home.parent.mkdir()
            ports.append(stack.enter_context(control_plane(home)))
            text = f"name: only-{index}\nrun: 'true'\n"
            assert steer(home, "up", "-", stdin=text.encode()).returncode == 0
        assert len(set(ports)) == 2
        assert [list(phases(home)) for home in homes] == [["only-0"], ["only-1"]]


def test_an_altered_journal_is_found_and_not_served(fresh: Path) -> None:
    assert steer(fresh, "up", "-", stdin=HELLO.encode()).returncode == 0
    assert steer(fresh, "server", "--stop").returncode == 0
    database = fresh / "journal.db"
    data = database.read_bytes()
    at = data.index(b"echo hello")
    database.write_bytes(data[:at] + b"echo hollo" + data[at + 10 :])
    run = steer(fresh, "audit", "--verify")
    assert run.returncode == 1
    assert "error:" in run.stderr
    found: Any = steer_json(fresh, "audit", "--verify", code=1)
    assert found["problems"]
    refused(steer(fresh, "up", "-", stdin=HELLO.encode()), "was altered")
    refused(steer(fresh, "server", "--background"), "the control plane did not start")


# Devices.


def test_programs_are_told_which_devices_are_their_own(fresh: Path) -> None:
    shell = 'run: echo "$STEERSMAN_DEVICES|$CUDA_VISIBLE_DEVICES|$STEERSMAN_DEVICE_SHARE"\n'
    text = (
        "kind: fleet\nnodes: [{name: big, cpus: 2, memory: 2GB, accelerators: T4:2}]\n---\n"
        f"name: both\nresources: {{cpus: 0.1, memory: 64MB, accelerators: T4:2}}\n{shell}---\n"
        f"name: half\nresources: {{cpus: 0.1, memory: 64MB, accelerators: T4:0.5}}\n{shell}---\n"
        f"name: none\nresources: {{cpus: 0.1, memory: 64MB}}\n{shell}"
    )
    assert steer(fresh, "up", write(fresh.parent / "devices.yaml", text)).returncode == 0
    told = [steer(fresh, "logs", name).stdout.strip() for name in ("both", "half", "none")]
    assert told == ["big/T4-0,big/T4-1|0,1|", "big/T4-0|0|0.5", "||"]


# The policy.


def test_a_policy_is_set_kept_and_refused_whole(fresh: Path) -> None:
    assert steer(fresh, "up", write(fresh.parent / "a.yaml", "name: a\nrun: echo\n")).returncode == 0
    file = write(fresh.parent / "p.yaml", "backoff_ms_base: 500\npreempt_attempts_per_cycle: 0\n")
    told = steer(fresh, "policy", "set", file).stdout
    assert "~ policy\n" in told
    assert "backoff_ms_base: 1000 → 500" in told
    assert steer(fresh, "policy", "set", file).stdout == "= policy: unchanged\n"
    wrong = write(fresh.parent / "w.yaml", "backoff_ms_bas: 5\n")
    refused(steer(fresh, "policy", "set", wrong), "did you mean `backoff_ms_base`?")
    refused(steer(fresh, "policy", "set", str(fresh.parent / "none.yaml")), "cannot be read")
    shown = steer_json(fresh, "policy", "show")
    assert (shown["backoff_ms_base"], shown["preempt_attempts_per_cycle"]) == (500, 0)
    (row,) = (
        line for line in steer(fresh, "policy", "show").stdout.splitlines() if "backoff_ms_base" in line
    )
    assert row.split()[:3] == ["backoff_ms_base", "500", "1000"]
    assert "policy-set" in steer(fresh, "audit").stdout
    assert steer(fresh, "policy", "set", write(fresh.parent / "d.yaml", "{}\n")).returncode == 0
    assert steer_json(fresh, "policy", "show")["backoff_ms_base"] == 1_000
