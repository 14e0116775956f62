"""What a replica refuses to serve: it never gets ready, says why in one line, and its exit code tells."""

from pathlib import Path

import pytest
from tests.serving.replica_scene import Replica, callable_replica, logistic, onnx_replica

from steersman.ports import run_dir


@pytest.mark.parametrize(
    ("what", "words"),
    [("missing", "cannot be opened"), ("truncated", "cut short"), ("random", "not a whole ONNX file")],
)
def test_a_file_that_is_no_model(tmp_path: Path, what: str, words: str) -> None:
    whole = logistic()[0].SerializeToString()
    contents = {"truncated": whole[: len(whole) // 2], "random": bytes(range(7, 256)) * 9}
    model = contents.get(what, Path("missing.onnx"))
    with onnx_replica(tmp_path, model) as replica:
        code, _, err = replica.end()
        made = sorted(path.name for path in replica.folder.iterdir())

    assert (code, made) == (78, [])
    (line,) = err.splitlines()
    assert line.startswith("replica: the model cannot be served: ")
    assert words in line
    assert "hint: " in line


@pytest.mark.parametrize(
    ("source", "target", "code", "words"),
    [
        ("x = 1", "nowhere:predict", 78, "no module nowhere"),
        ("x = 1", "model:predict", 78, "has no predict"),
        ("x = 1", "model:x", 78, "cannot be called"),
        ("x = 1", "model", 78, "is none"),
        ("x = (", "model:x", 78, "SyntaxError"),
        ("import nowhere_at_all", "model:x", 78, "install what it needs"),
        ("raise RuntimeError('no network')", "model:x", 1, "RuntimeError: no network"),
        ("raise SystemExit(0)", "model:x", 1, "SystemExit"),
        ("class predict:\n    def __init__(self): 1 / 0", "model:predict", 1, "ZeroDivisionError"),
        ("class predict:\n    async def load(self): ...", "model:predict", 78, "coroutine"),
        ("def predict(x): yield x\npredict.batched = True", "model:predict", 78, "drop batched"),
    ],
)
def test_a_callable_that_cannot_be_loaded(
    tmp_path: Path, source: str, target: str, code: int, words: str
) -> None:
    with callable_replica(tmp_path, source, target) as replica:
        ended, _, err = replica.end()

    assert ended == code
    line = err.splitlines()[-1]
    assert words in line
    assert "hint: " in line


def test_wrong_settings(tmp_path: Path) -> None:
    with Replica(tmp_path, {"kind": "pickle"}) as replica:
        code, _, err = replica.end()

    assert code == 78
    assert run_dir.ENV_REPLICA in err


def test_modules_beside_the_replica_s_own_do_not_stand_in_for_the_user_s(tmp_path: Path) -> None:
    """The replica has modules of these names too, and `steersman` may be the user's word as well."""
    (tmp_path / "server.py").write_text("NAME = 'mine'")
    (tmp_path / "errors.py").write_text("NAME = 'mine'")
    source = """
import sys, errors, server
def predict(row): return [errors.NAME, server.NAME, any("dataplane" in path for path in sys.path)]
"""
    with callable_replica(tmp_path, source).ready() as replica, replica.gateway() as gateway:
        assert gateway.answers(0) == [["mine", "mine", False]]
