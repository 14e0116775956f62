"""`steer` and services, as a new user meets them: a port that is taken, a rollout, a model that fails."""

import socket
from pathlib import Path

from tests.e2e.steer_process import steer, steer_json, write

SERVICE = """
kind: service
name: twice
model: {callable: "double:double"}
resources: {cpus: 0.2, memory: 128MB}
"""


def test_from_a_taken_port_to_a_model_that_cannot_be_loaded(fresh: Path) -> None:
    folder = fresh.parent / "twice"
    write(folder / "double.py", "def double(x):\n    return 2 * x\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        file = write(folder / "twice.yaml", f"kind: gateway\nport: {port}\n---{SERVICE}")
        planned = steer(fresh, "plan", file)
        foreseen = f"warning: port {port} is taken; the gateway will listen on a free port instead"
        assert foreseen in planned.stderr.splitlines()
        assert f"    port: 8000 → {port}" in planned.stdout.splitlines()
        run = steer(fresh, "up", file)
        assert run.returncode == 0, run.stderr
        warning = next(line for line in run.stderr.splitlines() if line.startswith("warning: "))
        assert warning.startswith(f"warning: port {port} is taken; the gateway listens on ")
        listens = int(warning.split()[-2])
        assert f"    http://127.0.0.1:{listens}/predict/twice" in run.stdout.splitlines()
        assert f"the gateway listens on 127.0.0.1:{listens}" in run.stdout.splitlines()
        for verb in (("status",), ("status", "twice"), ("plan", file)):
            assert warning in steer(fresh, *verb).stderr.splitlines(), verb

    write(folder / "double.py", "def double(x):\n    return 3 * x\n")
    run = steer(fresh, "up", file)
    assert run.returncode == 0, run.stderr
    assert any(line.startswith("twice serving (1/1, revision 2): ") for line in run.stdout.splitlines())

    write(folder / "double.py", "raise RuntimeError('no weights here')\n")
    run = steer(fresh, "up", file)
    assert run.returncode == 1, run.stdout
    last = next(line for line in run.stdout.splitlines() if " said last: " in line)
    assert "no weights here" in last
    assert "no weights here" in steer(fresh, "status", "twice").stdout
    assert any("no weights here" in fact for fact in steer_json(fresh, "explain", "twice")["facts"])


def test_keys_until_there_are_none(home: Path) -> None:
    nothing = "there are no keys now; make one with `steer key create NAME`\n"
    assert steer(home, "key", "create", "app").stdout.startswith("sk-st-")
    assert "app" in steer(home, "key", "list").stdout
    assert steer(home, "key", "revoke", "app").returncode == 0
    assert steer(home, "key", "list").stdout == nothing
