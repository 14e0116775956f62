"""`steer` as processes: a command to its end, and a control plane of a home until a signal."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RUN_SECONDS_MAX = 60
SECONDS_MAX = 20
"""How long one answer of the API may take."""
KEPT = frozenset({"PATH", "LANG"})
HELLO = "name: hello\nrun: echo hello\n"
LONG = "name: long\nrun: sleep 600\nstop_duration: 1s\n"
STEER = (sys.executable, "-P", "-W", "error", "-m", "steersman.app.cli")


def environ(home: Path, **more: str) -> dict[str, str]:
    """The environment of a user whose home this is, and of nobody else."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith("COVERAGE_")}
    return {**kept, "HOME": str(home.parent), "STEERSMAN_HOME": str(home), "STEERSMAN_PORT": "0", **more}


def steer(
    home: Path, *args: str, stdin: bytes = b"", cwd: Path | None = None, **more: str
) -> "subprocess.CompletedProcess[str]":
    """Run one command to its end."""
    run = subprocess.run(
        [*STEER, *args],
        input=stdin,
        capture_output=True,
        env=environ(home, **more),
        cwd=cwd or home.parent,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )
    return subprocess.CompletedProcess(args, run.returncode, run.stdout.decode(), run.stderr.decode())


def steer_json(home: Path, *args: str, code: int = 0) -> Any:
    """The JSON document that a command prints."""
    run = steer(home, *args, "--json")
    assert run.returncode == code, (args, run.stdout, run.stderr)
    return json.loads(run.stdout)


@contextlib.contextmanager
def spawned(home: Path, args: Sequence[str], **more: str) -> Iterator["subprocess.Popen[str]"]:
    """A command that goes on; killed at the end if it has not ended."""
    child = subprocess.Popen(
        [*STEER, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ(home, **more),
        cwd=home.parent,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@contextlib.contextmanager
def control_plane(home: Path) -> Iterator[int]:
    """A control plane in the foreground; its port. It must end cleanly."""
    with spawned(home, ["server", "--json"]) as child:
        assert child.stdout is not None
        line = ""
        while not line.rstrip().endswith("}"):
            more = child.stdout.readline()
            assert more, (line, child.communicate())
            line += more
        yield int(json.loads(line)["port"])
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=RUN_SECONDS_MAX)
        assert child.returncode == 0, errors
        assert "Traceback" not in errors, errors


def end_work(home: Path) -> None:
    """Remove every workload and end the control plane, whichever is there."""
    steer(home, "down", "--all")
    steer(home, "server", "--stop")


def write(path: Path, text: str) -> str:
    """A file with its folders; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def phases(home: Path) -> dict[str, str]:
    """The phase of every workload."""
    return {row["name"]: row["phase"] for row in steer_json(home, "status")["workloads"]}


def refused(run: "subprocess.CompletedProcess[str]", words: str, code: int = 1) -> None:
    """An error in two lines, the exit code, nothing on stdout, and no traceback. How far a control plane has
    got is told before it, where that takes long."""
    assert run.returncode == code, (run.stdout, run.stderr)
    assert words in run.stderr
    lines = [
        line
        for line in run.stderr.splitlines()
        if not line.startswith(("warning:", "starting the control plane: "))
    ]
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], run.stderr
    assert run.stdout == ""


def running(home: Path, name: str) -> str:
    """The run of a workload once it runs."""
    for _ in range(200):
        for row in steer_json(home, "status")["workloads"]:
            if row["name"] == name and row["run_state"] == "running":
                return str(row["run"])
    raise AssertionError(f"{name} does not run")


class Api:
    """A server's address and token, and requests to it."""

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port = home, port
        self.token = (home / "token").read_text().strip()

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON (or bytes) of an answer; with the token unless headers are given."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {self.token}"} if headers is None else headers
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS_MAX)
        try:
            connection.request(method, path, body=data, headers=given)
            response = connection.getresponse()
            return response.status, _decoded(response.read())
        finally:
            connection.close()

    def raw(self, request: bytes) -> tuple[int, bytes]:
        """Status and everything else of the answer to bytes as they are; status 0 for no answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS_MAX) as connection:
            connection.sendall(request)
            answer = b""
            while chunk := connection.recv(65_536):
                answer += chunk
                if b"\r\n\r\n" in answer:
                    break
        return (int(answer.split(b" ", 2)[1]) if answer else 0), answer

    def position(self) -> int:
        """How many declarations and requests the journal holds."""
        kinds = ("workload-declared", "fleet-declared", "stop-requested", "remove-requested")
        return sum(len(self.ask("GET", f"/v1/events?limit=1000&type={kind}")[1]["events"]) for kind in kinds)


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data
