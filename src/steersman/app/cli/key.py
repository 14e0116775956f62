"""`steer key`: API keys for callers of services. A key is printed once, when it is made, and kept nowhere."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import typer

from steersman.app.cli.options import Home, Json, connect, takes
from steersman.app.cli.say import note, say, say_json
from steersman.app.cli.shown import show_table
from steersman.app.client import path
from steersman.app.wire import KeyRequest, KeysView, KeyView, NamesView, NewKeyView
from steersman.model.errors import ConflictError, SpecError
from steersman.model.units import format_duration_ms, parse_duration_ms

BANDS: Mapping[str, int] = {"low": 0, "normal": 1, "high": 2}
HEAD = ("NAME", "SERVICES", "EXPIRES", "RATE", "BURST", "CONCURRENCY", "WEIGHT", "PRIORITY", "DIGEST")
NOTHING = "-"
NO_KEYS = "there are no keys now; make one with `steer key create NAME`"

app = typer.Typer(add_completion=False, help="Make, list and revoke API keys.", no_args_is_help=True)

KeyName = Annotated[
    str, typer.Argument(metavar="NAME", help="What the key is called here.", show_default=False)
]
Services = Annotated[
    list[str] | None,
    typer.Option("--service", help="A service it may use; may be repeated. Else all.", show_default=False),
]
Expires = Annotated[
    str | None,
    typer.Option("--expires", help="How long it is good: 30d, 12h. Else for ever.", show_default=False),
]
Rate = Annotated[
    float | None,
    typer.Option("--rate", help="Requests a second on average. Else unlimited.", show_default=False),
]
Burst = Annotated[int, typer.Option("--burst", min=1, help="Requests at once beyond that rate.")]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, help="Requests under way. Else unlimited.", show_default=False),
]
Weight = Annotated[int, typer.Option("--weight", min=1, help="Its share when keys compete.")]
Priority = Annotated[
    str, typer.Option("--priority", help="The highest band it may ask for: low, normal or high.")
]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of `key create`."""

    name: KeyName
    services: Services = None
    expires: Expires = None
    rate: Rate = None
    burst: Burst = 100
    concurrency: Concurrency = None
    weight: Weight = 1
    priority: Priority = "normal"
    json: Json = False
    home: Home = None


@app.command("create")
@takes(Asked)
def create_key(asked: Asked) -> int:
    """Make an API key and print it, this once.

    Callers send it as `Authorization: Bearer KEY`, or as `X-API-Key: KEY`.
    """
    request = KeyRequest(
        name=asked.name,
        services=tuple(asked.services or ()),
        expires_in_ms=_duration_ms(asked.expires),
        rate_milli=_rate_milli(asked.rate),
        burst=asked.burst,
        concurrency=asked.concurrency,
        weight=asked.weight,
        priority_max=_band(asked.priority),
    )
    with connect(asked.home) as client:
        made = client.post(path("keys"), request, NewKeyView)
    if asked.json:
        say_json(made)
    else:
        say(made.secret)
        note("keep it now: it is not stored and cannot be shown again")
    return 0


@app.command("list")
def list_keys(*, json: Json = False, home: Home = None) -> int:
    """List the keys; the keys themselves are never shown."""
    with connect(home) as client:
        found = client.get(path("keys"), KeysView)
    if json:
        say_json(found)
    else:
        show_table(HEAD, [_row(key) for key in found.keys], NO_KEYS)
    return 0


@app.command("revoke")
def revoke_key(name: KeyName, *, json: Json = False, home: Home = None) -> int:
    """End a key; requests with it are refused within a fraction of a second."""
    with connect(home) as client:
        answer = client.post(path("keys", name, "revoke"), None, NamesView)
    if json:
        say_json(answer)
    else:
        say(f"the key {name} is revoked")
    return 0


def _duration_ms(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_duration_ms(text)
    except SpecError as error:
        raise ConflictError(f"--expires: {error.message}", hint=error.hint, code="bad-request") from error


def _rate_milli(rate: float | None) -> int | None:
    if rate is None:
        return None
    if not 0.001 <= rate <= 1_000_000:
        raise ConflictError(
            f"--rate {rate:g} is not a rate",
            hint="give requests a second, from 0.001 to 1000000",
            code="bad-request",
        )
    return round(rate * 1000)


def _band(priority: str) -> int:
    if priority not in BANDS:
        raise ConflictError(
            f"--priority {priority[:40]!r} is not a band",
            hint=f"the bands are: {', '.join(BANDS)}",
            code="bad-request",
        )
    return BANDS[priority]


def _row(key: KeyView) -> tuple[str, ...]:
    names = {band: name for name, band in BANDS.items()}
    return (
        key.name,
        ", ".join(key.services) or "all",
        _expiry(key),
        NOTHING if key.rate_milli is None else f"{key.rate_milli / 1000:g}/s",
        NOTHING if key.rate_milli is None else str(key.burst),
        NOTHING if key.concurrency is None else str(key.concurrency),
        str(key.weight),
        names.get(key.priority_max, str(key.priority_max)),
        key.digest_start,
    )


def _expiry(key: KeyView) -> str:
    if key.expires_ms is None:
        return "never"
    if key.expired:
        return "expired"
    left_ms = max(key.expires_ms - time.time_ns() // 1_000_000, 0)
    return f"in {format_duration_ms(left_ms // 60_000 * 60_000)}" if left_ms >= 60_000 else "in less than 1m"
