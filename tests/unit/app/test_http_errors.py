"""The API's refusals in plain words: no decoder's shorthand, and a limit by its amount."""

from typing import Any, cast

import msgspec
import pytest
from litestar import Request
from litestar.exceptions import ClientException, ValidationException

from steersman.app.http.errors import on_http
from steersman.app.wire import BODY_BYTES_MAX

NOBODY = cast("Request[Any, Any, Any]", None)


def said(error: ClientException) -> dict[str, str]:
    body = on_http(NOBODY, error).content
    found: dict[str, str] = msgspec.json.decode(body)["error"]
    return found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("Expected `array` of length >= 1", "documents: expected at least 1 value"),
        ("Expected `array` of length <= 1000", "documents: expected at most 1000 values"),
        ("Expected `str` of length <= 128", "documents: expected at most 128 characters"),
        ("Expected `int`, got `str`", "documents: Expected `int`, got `str`"),
    ],
)
def test_limits_of_length_are_told_in_words(given: str, words: str) -> None:
    error = ValidationException("wrong", extra=[{"key": "documents", "message": given}])
    assert said(error)["message"] == words


def test_a_body_over_the_limit_is_told_the_limit() -> None:
    found = said(ClientException("too large", status_code=413))
    assert found["code"] == "too-large"
    assert f"{BODY_BYTES_MAX // 2**20} MiB, and no setting changes that" in found["hint"]
