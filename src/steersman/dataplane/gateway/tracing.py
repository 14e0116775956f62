"""Traces: W3C trace context in, the same trace handed on to the replica, and a span for requests worth one.

Theory: a request is traced when its caller says so (the sampled flag of ``traceparent``) or, without a
caller's word, with the chance OTEL_TRACES_SAMPLER_ARG. For any other request nothing is made: `begin` costs a
look at one byte. What is traced gets its span at once, so that its id can go to the replica as the parent of
what happens there; ended spans go into a bounded queue that a thread of the SDK empties, and what does
not fit is dropped. A tracer without an exporter does nothing, and serving never depends on one.

OpenTelemetry is an extra and this is the only module that imports it: once, when this is imported, for an
import inside a function would stall the first traced request by some 50 ms, and tell of a broken
installation only then. Without the package the names below are None, and every tracer does nothing.

The environment is given by the caller. Read are OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER (``none``),
OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS,
OTEL_TRACES_SAMPLER_ARG and OTEL_SERVICE_NAME.
"""

import random
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

import msgspec

try:
    from opentelemetry import trace as api
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    INSTALLED = True
except ImportError:
    INSTALLED = False

QUEUE_SPANS_MAX: Final = 2_048
BATCH_SPANS_MAX: Final = 1_024
EXPORT_EVERY_MS: Final = 1_000
EXPORT_TIMEOUT_S: Final = 2.0
"""Of one export, its retries included; closing waits for at most three."""

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]{0,128})?")
_SAMPLED: Final = frozenset(b"13579bdf")  # last digits whose lowest bit is set
_FLAGS_END: Final = 54  # place of the flags' last digit


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's trace context."""

    trace_id: int
    span_id: int
    sampled: bool


class Span:
    """A traced request. `traceparent` goes to the replica: the same trace, this span as the parent."""

    __slots__ = ("span", "traceparent")

    def __init__(self, span: Any, traceparent: str) -> None:
        self.span = span
        self.traceparent = traceparent


def parse(traceparent: bytes) -> Parent | None:
    """A W3C ``traceparent``; None for anything that is none. A later version is read as far as it is ours."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    if not trace_id or not span_id:
        return None
    return Parent(trace_id=trace_id, span_id=span_id, sampled=bool(int(flags, 16) & 1))


def passed_on(traceparent: bytes | None) -> str | None:
    """What a request that is not traced here hands to the replica: what it came with, if that is valid."""
    if traceparent is None or parse(traceparent) is None:
        return None
    return traceparent.decode("ascii")


class Tracer:
    """Begins and finishes the spans of one process. Does nothing when it is not `enabled`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        endpoint = _endpoint(environment)
        self.enabled = INSTALLED and endpoint is not None
        self._ratio = _ratio(environment.get("OTEL_TRACES_SAMPLER_ARG", "")) if self.enabled else 0.0
        self._provider: Any = None
        self._tracer: Any = None
        if self.enabled and endpoint is not None:
            self._provider = _provider(endpoint, environment)
            self._tracer = self._provider.get_tracer("steersman.gateway")

    def begin(self, traceparent: bytes | None) -> Span | None:
        """The span of a request that is to be traced; None for the others.

        A header that is no traceparent counts as none, but for one whose flags would say "not sampled".
        """
        if self._tracer is None:
            return None
        if traceparent is None:
            return self._new(None) if self._ratio and random.random() < self._ratio else None  # noqa: S311 - a sample, no secret
        if len(traceparent) > _FLAGS_END and traceparent[_FLAGS_END] not in _SAMPLED:
            return None
        parent = parse(traceparent)
        if parent is None:
            return self.begin(None)  # as the standard has it: an invalid one was never there
        return self._new(parent) if parent.sampled else None

    def finish(self, context: Span, name: str, outcome: str, times: Mapping[str, float]) -> None:
        """End a span. `times`: seconds of each stage (``queued``, ``model``), written in microseconds."""
        span = context.span
        span.update_name(name)
        span.set_attribute("steersman.outcome", outcome)
        for stage, seconds in times.items():
            span.set_attribute(f"steersman.{stage}_us", round(seconds * 1e6))
        if outcome not in {"ok", "invalid"}:
            span.set_status(api.StatusCode.ERROR, outcome)
        span.end()

    def close(self) -> None:
        """Send what is queued, for at most three times EXPORT_TIMEOUT_S."""
        if self._provider is not None:
            self._provider.shutdown()
            self._provider = self._tracer = None

    def _new(self, parent: Parent | None) -> Span:
        above = None
        if parent is not None:
            flags = api.TraceFlags(api.TraceFlags.SAMPLED)
            remote = api.SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
            above = api.set_span_in_context(api.NonRecordingSpan(remote))
        span = self._tracer.start_span("request", context=above, kind=api.SpanKind.SERVER)
        own = span.get_span_context()
        return Span(span, f"00-{own.trace_id:032x}-{own.span_id:016x}-01")


def _provider(endpoint: str, environment: Mapping[str, str]) -> Any:
    exporter = OTLPSpanExporter(
        endpoint=endpoint,
        headers=_headers(environment.get("OTEL_EXPORTER_OTLP_HEADERS", "")),
        timeout=EXPORT_TIMEOUT_S,
    )
    name = environment.get("OTEL_SERVICE_NAME") or "steersman-gateway"
    provider = TracerProvider(
        sampler=ALWAYS_ON,  # `begin` has chosen already
        resource=Resource({"service.name": name}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=QUEUE_SPANS_MAX,
            max_export_batch_size=BATCH_SPANS_MAX,
            schedule_delay_millis=EXPORT_EVERY_MS,
            export_timeout_millis=EXPORT_TIMEOUT_S * 1_000,
        )
    )
    return provider


def _endpoint(environment: Mapping[str, str]) -> str | None:
    """Where spans go; None: nowhere."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if environment.get("OTEL_TRACES_EXPORTER", "").lower() == "none":
        return None
    own = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if own:
        return own
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return f"{base.rstrip('/')}/v1/traces" if base else None


def _headers(text: str) -> dict[str, str]:
    """``key=value,key=value`` with values percent-encoded."""
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs}


def _ratio(text: str) -> float:
    """A chance from 0 to 1; 0 for anything else, so that a slip never traces everything."""
    try:
        ratio = float(text)
    except ValueError:
        return 0.0
    return ratio if 0 <= ratio <= 1 else 0.0
