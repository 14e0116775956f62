"""What the environment may say, and that a wrong word is named."""

import json

import pytest

from steersman.dataplane.replica.errors import LoadError
from steersman.dataplane.replica.settings import ENV_MODEL, read_settings
from steersman.ports import run_dir

GOOD = {"service": "s", "revision": 2, "kind": "onnx", "batch_size_max": 64, "batch_timeout_ms": 500}


def environ(asked: object = GOOD, **more: str) -> dict[str, str]:
    return {run_dir.ENV_RUN_DIR: "/r", run_dir.ENV_REPLICA: json.dumps(asked), ENV_MODEL: "/m", **more}


@pytest.mark.parametrize(
    ("cpu_milli", "threads", "expected"),
    [("", None, 1), ("500", None, 1), ("2500", None, 2), ("4000", 3, 3), ("x", None, 1)],
)
def test_threads_are_the_cores_granted(cpu_milli: str, threads: int | None, expected: int) -> None:
    asked = {**GOOD, "threads": threads, "a later key": 1}
    settings = read_settings(environ(asked, **{run_dir.ENV_CPU_MILLI: cpu_milli}))

    assert settings.threads == expected
    assert (settings.model, settings.batch_size_max, settings.revision) == ("/m", 64, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {run_dir.ENV_RUN_DIR: ""},
        {run_dir.ENV_REPLICA: ""},
        {run_dir.ENV_REPLICA: "[]"},
        {run_dir.ENV_REPLICA: json.dumps({**GOOD, "kind": "pickle"})},
        {run_dir.ENV_REPLICA: json.dumps({**GOOD, "kind": 3})},
        {run_dir.ENV_REPLICA: json.dumps({**GOOD, "kind": "callable"}), "named": run_dir.ENV_REPLICA},
        {run_dir.ENV_REPLICA: json.dumps({**GOOD, "batch_size_max": 0})},
        {run_dir.ENV_REPLICA: json.dumps({**GOOD, "batch_size_max": True})},
        {run_dir.ENV_REPLICA: json.dumps({**GOOD, "batch_timeout_ms": "5"})},
        {ENV_MODEL: ""},
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, str]) -> None:
    named = next(iter(wrong))
    with pytest.raises(LoadError, match=named) as raised:
        read_settings(environ(**wrong))
    assert raised.value.hint


@pytest.mark.parametrize("address", ["10.0.0.7", "::1"])
def test_where_it_is_to_listen(address: str) -> None:
    assert read_settings(environ({**GOOD, "listen": {"address": address}})).listen == address


@pytest.mark.parametrize(
    "listen",
    [
        "10.0.0.7",
        {},
        *({"address": each} for each in (1, "", "node", "0.0.0.0", "::", "[::1]", "10.0.0.7:1")),
    ],
)
def test_an_address_that_no_gateway_could_dial_is_refused(listen: object) -> None:
    with pytest.raises(LoadError, match="listen"):
        read_settings(environ({**GOOD, "listen": listen}))
