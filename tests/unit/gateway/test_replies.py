"""What a refusal says to who must mend the request: a stable code, and what to do."""

from typing import Any

import msgspec
import pytest

from steersman.dataplane.gateway.http.replies import Refusal, error_body, invalid, refusal_bytes
from steersman.dataplane.gateway.http.request import NOT_FOUND, too_big
from steersman.dataplane.gateway.http.routes import Kind, Route


def said(refusal: Refusal) -> Any:
    return msgspec.json.decode(error_body(refusal, None))


@pytest.mark.parametrize(
    ("refusal", "code", "hint"),
    [
        (NOT_FOUND, "not-found", "POST /predict/NAME, POST /v2/models/NAME/infer, GET /v2/models/NAME"),
        (invalid(405, "no", allow=b"POST"), "method-not-allowed", "ask with POST"),
        (
            invalid(405, "no", "send it plainly", allow=b"GET, POST"),
            "method-not-allowed",
            "send it plainly; ask with GET or POST",
        ),
        (invalid(421, "no", "ask by the address"), "misdirected", "ask by the address"),
        (invalid(400, "no", "mend it"), "invalid", "mend it"),
        (invalid(505, "no"), "invalid", "send HTTP/1.1"),
        (invalid(501, "no", allow=b"GET, POST"), "invalid", "ask with GET or POST"),
        (too_big(Route(Kind.PREDICT)), "invalid", "at most 0 bytes; `service.max_body` of a declaration"),
    ],
)
def test_codes_and_hints_of_mistakes(refusal: Refusal, code: str, hint: str) -> None:
    answer = said(refusal)
    assert answer["code"] == code
    assert hint in answer["hint"]
    assert refusal.outcome == "invalid"  # what is counted stays as it was


def test_the_methods_that_are_allowed_stand_in_the_head_too() -> None:
    answer = refusal_bytes(invalid(405, "no", allow=b"POST"), None, keep=True)
    assert b"\r\nallow: POST\r\n" in answer
