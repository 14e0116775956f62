"""Services as a user meets them: real control plane, gateway, replicas, and faults under load."""

import http.client
import json
from pathlib import Path

import pytest
from tests.e2e.steer_process import refused, steer, steer_json, write
from tests.serving.serving_scene import (
    ROW,
    Served,
    kill,
    load,
    lost,
    make_model,
    service,
    serving,
    statuses,
    until,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_nothing_is_lost_while_everything_changes(home: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "m.onnx")
    with serving(home) as served:
        served.up(service("onnx: m.onnx"))
        served.serves(revision=1)
        assert served.ask(ROW) == (200, {"sum": [10.0]})
        with load(served) as clients:
            served.up(service("onnx: m.onnx", replicas=2))
            served.serves(revision=1, ready=2)
            kill(served.pid_of(served.replicas()[0]["run"]))
            served.serves(revision=1, ready=2)
            served.up(service("onnx: m.onnx", "max_batch_size: 8"))
            served.serves(revision=2)
            make_model(tmp_path / "m.onnx", scale=2.0)
            served.up(service("onnx: m.onnx", "max_batch_size: 8"))
            served.serves(revision=3)
            kill(served.control_plane())
            assert served.ask(ROW) == (200, {"sum": [20.0]})
            steer(home, "server", "--background")
            served.serves(revision=3)
        assert lost(clients) == []
        assert statuses(clients) == {200}
        values = {body["sum"][0] for client in clients for _, body in client.answers}
        assert values == {10.0, 20.0}, "an answer belongs to one revision or the other"


def test_a_gateway_worker_that_is_killed_is_replaced_at_once(home: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "m.onnx")
    with serving(home) as served:
        served.up(service("onnx: m.onnx"))
        served.serves()
        port = served.port
        with load(served) as clients:
            until(lambda: all(client.answers for client in clients), "all clients were answered")
            stats = next((home / "gateway").glob("stats-*.json"))
            kill(int(json.loads(stats.read_text())["pid"]))
            seen = [len(client.answers) for client in clients]
            until(
                lambda: all(
                    len(client.answers) > before + 3 for client, before in zip(clients, seen, strict=True)
                ),
                "all clients are answered again",
            )
        assert served.port == port
        assert len(lost(clients)) <= len(clients), "only what the killed process had under way"
        assert statuses(clients) == {200}


def test_a_revision_that_cannot_start_never_touches_the_one_that_serves(home: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "m.onnx")
    with serving(home) as served:
        served.up(service("onnx: m.onnx"))
        served.serves(revision=1)
        first = served.replicas()[0]["run"]
        (tmp_path / "bad.onnx").write_bytes((tmp_path / "m.onnx").read_bytes()[:60])
        with load(served) as clients:
            served.up(service("onnx: bad.onnx"))
            until(lambda: served.row()["failed"] == 2, "the new revision is given up")
            until(lambda: [item["run"] for item in served.replicas()] == [first], "its replica is gone")
        assert lost(clients) == []
        assert statuses(clients) == {200}
        explained = steer(home, "explain", "sum")
        assert "78" in explained.stdout or "cannot be loaded" in explained.stdout
        served.up(service("onnx: m.onnx", "max_batch_size: 4"))
        served.serves(revision=3)


def test_bad_rows_bad_models_and_models_that_are_not_there(home: Path, tmp_path: Path) -> None:
    write(
        tmp_path / "code" / "models.py",
        "import asyncio, time\n"
        "def even(item):\n"
        "    if item % 2:\n        raise ValueError('odd')\n    return item // 2\n"
        "def hang(item):\n    time.sleep(600 if item else 0)\n    return item\n"
        "async def block(item):\n    time.sleep(600 if item else 0)\n    return item\n"
        "def pieces(item):\n    yield from range(item)\n",
    )
    make_model(tmp_path / "m.onnx")
    with serving(home) as served:
        served.up(
            service("onnx: m.onnx")
            + "".join(
                f"---\n{service(f'callable: models:{name}', 'request_timeout: 1s', name=name)}workdir: code\n"
                for name in ("even", "hang", "block", "pieces")
            )
            + f"---\n{service('artifact: nobody/model', name='waits')}"
        )
        for name in ("sum", "even", "hang", "block", "pieces"):
            served.serves(name)
        status, answer = served.ask([1, 2, 3])
        assert (status, answer["code"]) == (400, "invalid")
        assert served.ask([1, 2, 3, 1e39])[0] == 400
        assert served.ask(2, "even") == (200, 1)
        status, answer = served.ask(3, "even")
        assert (status, answer["code"]) == (500, "model-error")
        assert "odd" not in str(answer)
        for name in ("hang", "block"):
            assert served.ask(0, name) == (200, 0)
            assert served.ask(1, name)[0] in {502, 504}
            until(lambda name=name: served.ask(0, name) == (200, 0), f"{name} answers again")
        row = served.row("waits")
        assert (row["phase"], row["ready"]) == ("waiting", 0)
        assert "nobody" in row["reason"]
        assert served.ask([], "nowhere")[0] == 404


def test_what_cannot_be_declared_is_refused_with_words(home: Path, tmp_path: Path) -> None:
    with serving(home) as served:
        (tmp_path / "folder.onnx").mkdir()
        cases = (
            (service("onnx: missing.onnx"), "missing.onnx"),
            (service("onnx: folder.onnx"), "folder.onnx"),
            (service("onnx: m.onnx, callable: 'a:b'"), "model"),
            ("name: x\nservice: {replicas: 1}\nrun: python serve.py\n", "model"),
        )
        for text, words in cases:
            refused(steer(home, "up", write(tmp_path / "bad.yaml", text), "--no-wait"), words)
        assert steer_json(served.home, "status")["services"] == []


def test_keys_are_asked_for_and_a_revoked_one_is_none(home: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "m.onnx")
    with serving(home) as served:
        elsewhere = service("artifact: nobody/model", name="elsewhere")
        gateway = "kind: gateway\nkeys: required\nport: 0\n"
        served.up("---\n".join((service("onnx: m.onnx"), elsewhere, gateway)))
        served.serves()
        assert served.ask(ROW)[0] == 401
        made = steer_json(home, "key", "create", "mobile", "--service", "sum")
        other = steer_json(home, "key", "create", "other", "--service", "elsewhere")
        until(lambda: _ask_with(served, made["secret"]) == 200, "the key is known")
        until(lambda: _ask_with(served, other["secret"]) == 403, "the other key is known")
        steer_json(home, "key", "revoke", "mobile")
        until(lambda: _ask_with(served, made["secret"]) == 401, "the key is revoked")
        assert made["secret"] not in (home / "gateway" / "config.json").read_text()


def _ask_with(served: Served, key: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    connection.request("POST", "/predict/sum", json.dumps(ROW), {"Authorization": f"Bearer {key}"})
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_gateway_leaves_with_the_last_service(home: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "m.onnx")
    with serving(home) as served:
        served.up(service("onnx: m.onnx"))
        served.serves()
        gateway = next(home.glob("runs/steersman.gateway.*/0"))
        steer(home, "down", "sum")
        until((gateway / "exit.json").exists, "the gateway has ended")
