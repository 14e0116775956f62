"""Trace context and spans, against a real receiver of OTLP over HTTP."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from steersman.dataplane.gateway import tracing
from steersman.dataplane.gateway.tracing import Tracer, parse, passed_on

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01".encode()
UNSAMPLED = f"00-{TRACE}-{PARENT}-00".encode()
SOURCE = Path(tracing.__file__).parents[3]


class Receiver(HTTPServer):
    """Keeps what is exported to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[ExportTraceServiceRequest] = []
        self.seen: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> list[SpanMessage]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.server.seen.append((self.path, self.headers["X-Key"]))
        reply = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@contextmanager
def receiving() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield receiver
        finally:
            receiver.shutdown()
            thread.join()


def attributes(span: SpanMessage) -> dict[str, object]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_a_sampled_request_keeps_its_trace_and_passes_on_its_own_id() -> None:
    with receiving() as receiver:
        tracer = Tracer(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url + "/",
                "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b, other=c",
                "OTEL_SERVICE_NAME": "shop",
            }
        )
        context = tracer.begin(SAMPLED)
        assert context is not None
        handed = parse(context.traceparent.encode())
        tracer.finish(context, "predict digits", "ok", {"queued": 0.0015, "model": 0.25})
        failed = tracer.begin(SAMPLED)
        assert failed is not None
        tracer.finish(failed, "predict digits", "replica-lost", {})
        tracer.close()
        first, second = sorted(receiver.spans(), key=lambda span: span.start_time_unix_nano)
    assert first.trace_id.hex() == TRACE
    assert first.parent_span_id.hex() == PARENT
    assert handed == tracing.Parent(
        trace_id=int(TRACE, 16), span_id=int(first.span_id.hex(), 16), sampled=True
    )
    assert first.span_id.hex() != PARENT
    assert first.kind == SpanMessage.SPAN_KIND_SERVER
    assert first.name == "predict digits"
    assert attributes(first) == {
        "steersman.outcome": "ok",
        "steersman.queued_us": 1_500,
        "steersman.model_us": 250_000,
    }
    assert first.end_time_unix_nano >= first.start_time_unix_nano
    assert first.status.code == Status.STATUS_CODE_UNSET
    assert second.status.code == Status.STATUS_CODE_ERROR
    assert second.status.message == "replica-lost"
    assert receiver.seen[0] == ("/v1/traces", "a b")
    resource = receiver.requests[0].resource_spans[0].resource
    assert {one.key: one.value.string_value for one in resource.attributes}["service.name"] == "shop"


def test_a_request_that_its_caller_does_not_sample_makes_no_span() -> None:
    with receiving() as receiver:
        tracer = Tracer({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": receiver.url, "OTEL_TRACES_SAMPLER_ARG": "1"})
        assert tracer.begin(UNSAMPLED) is None
        tracer.close()
        assert receiver.spans() == []
    assert passed_on(UNSAMPLED) == UNSAMPLED.decode()


@pytest.mark.parametrize("traceparent", [None, b"", b"nonsense", b"ff" + SAMPLED[2:], b"\xff" * 54 + b"1"])
def test_without_a_valid_parent_the_ratio_decides(traceparent: bytes | None) -> None:
    with receiving() as receiver:
        environment = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": receiver.url + "/own"}
        for ratio, expected in (
            ("1.0", True),
            ("0", False),
            ("", False),
            ("2", False),
            ("nan", False),
            ("all", False),
        ):
            tracer = Tracer({**environment, "OTEL_TRACES_SAMPLER_ARG": ratio})
            context = tracer.begin(traceparent)
            assert (context is not None) is expected
            if context is not None:
                tracer.finish(context, "predict", "ok", {})
            tracer.close()
        (span,) = receiver.spans()
        assert receiver.seen[0][0] == "/own"
    assert span.parent_span_id == b""


def test_a_part_of_requests_without_a_parent_is_sampled() -> None:
    with receiving() as receiver:
        tracer = Tracer({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_TRACES_SAMPLER_ARG": "0.5"})
        sampled = sum(tracer.begin(None) is not None for _ in range(1_000))
        tracer.close()
    assert 300 < sampled < 700  # beyond 12 standard deviations


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_an_exporter_nothing_is_made(environment: dict[str, str]) -> None:
    before = threading.active_count()
    tracer = Tracer({**environment, "OTEL_TRACES_SAMPLER_ARG": "1"})
    assert not tracer.enabled
    assert tracer.begin(SAMPLED) is None
    assert tracer.begin(None) is None
    assert threading.active_count() == before
    tracer.close()


def test_without_the_package_nothing_is_made() -> None:
    program = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from steersman.dataplane.gateway.tracing import INSTALLED, Tracer\n"
        "tracer = Tracer({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:9'})\n"
        f"print(INSTALLED, tracer.enabled, tracer.begin({SAMPLED!r}))\n"
        "tracer.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert (done.stdout, done.stderr) == ("False False None\n", "")


def test_spans_that_cannot_be_sent_are_dropped_and_closing_ends() -> None:
    tracer = Tracer({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    for _ in range(10):
        context = tracer.begin(SAMPLED)
        assert context is not None
        tracer.finish(context, "predict", "ok", {})
    tracer.close()
    tracer.close()
    assert tracer.begin(SAMPLED) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        SAMPLED[:-1],
        SAMPLED + b"0",
        SAMPLED + b"-more",
        SAMPLED.upper(),
        b" " + SAMPLED,
        SAMPLED + b"\n",
        b"ff" + SAMPLED[2:],
        f"00-{'0' * 32}-{PARENT}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f"00-{TRACE}-{PARENT}-0g".encode(),
        f"00-{TRACE[:-1]}é-{PARENT}-01".encode(),
        f"01-{TRACE}-{PARENT}-01-{'a' * 1_000}".encode(),
        f"01-{TRACE}-{PARENT}-01.more".encode(),
    ],
)
def test_what_is_no_traceparent(text: bytes) -> None:
    assert parse(text) is None
    assert passed_on(text) is None


def test_what_is_a_traceparent() -> None:
    known = tracing.Parent(trace_id=int(TRACE, 16), span_id=int(PARENT, 16), sampled=True)
    assert parse(SAMPLED) == known
    assert parse(b"cc" + SAMPLED[2:] + b"-later") == known
    assert parse(SAMPLED[:-2] + b"03") == known
    unsampled = parse(SAMPLED[:-2] + b"fe")
    assert unsampled is not None
    assert not unsampled.sampled
    assert passed_on(SAMPLED) == SAMPLED.decode()
    assert passed_on(None) is None
