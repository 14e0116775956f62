"""Metrics, schedules and the forecast of a service: what they become, and what is refused."""

import pytest
from tests.unit.spec.test_spec_service import HEAD, refused, service

from steersman.model.service import Metric, Window
from steersman.spec.layout import of_service

POLICY = "service:\n  replica_policy:\n    max_replicas: 9\n    "


def scaling(text: str):  # type: ignore[no-untyped-def]  # a Scaling
    return service(POLICY + text).scaling


def test_a_forecast_is_on_unless_it_is_off() -> None:
    assert scaling("forecast: off").forecast is False
    assert scaling("forecast: on").forecast is True
    assert scaling("min_replicas: 2").foresees
    assert not scaling("{min_replicas: 9}".strip("{}")).foresees
    assert "service.replica_policy.forecast" in of_service(service(POLICY + "forecast: off"))
    assert "`on` or `off`" in str(refused(HEAD + POLICY + "forecast: maybe"))


@pytest.mark.parametrize(
    ("text", "metric", "words"),
    [
        (
            "{name: backlog, target: 2.5}",
            Metric(name="backlog", target_milli=2_500, per="replica"),
            "backlog, 2.5 per replica",
        ),
        (
            "{name: queued_jobs, target: 10}",
            Metric(name="queued_jobs", queue="default", target_milli=10_000, per="total"),  # type: ignore[arg-type]  # a NewType over str
            "queued_jobs of default, 10 per total",
        ),
        (
            "{name: queued_jobs, queue: train, per: replica, target: 1}",
            Metric(name="queued_jobs", queue="train", target_milli=1_000, per="replica"),  # type: ignore[arg-type]  # a NewType over str
            "queued_jobs of train, 1 per replica",
        ),
        (
            "{prometheus: {url: 'https://p.example:9090/prom/', query: 'sum(rate(x[1m]))'}, target: 100}",
            Metric(
                url="https://p.example:9090/prom", query="sum(rate(x[1m]))", target_milli=100_000, per="total"
            ),
            "sum(rate(x[1m])) (https://p.example:9090/prom), 100 per total",
        ),
    ],
)
def test_a_metric(text: str, metric: Metric, words: str) -> None:
    found = service(f"{POLICY}metrics: [{text}]")
    assert found.scaling.metrics == (metric,)
    assert of_service(found)["service.replica_policy.metrics"][1] == words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{target: 1}", "one of `name` and `prometheus`"),
        ("{name: backlog, prometheus: {url: 'http://p', query: x}, target: 1}", "one of `name` and"),
        ("{name: accuracy, target: 1}", "backlog, queued_jobs"),
        ("{name: backlog}", "`target` is missing"),
        ("{name: backlog, target: 0}", "is not a number above zero"),
        ("{name: backlog, target: 1, queue: train}", "is of no queue"),
        ("{name: backlog, target: 1, per: total}", "a figure of one replica"),
        ("{name: backlog, target: 1, per: pod}", "`replica` or `total`"),
        ("{prometheus: {query: x}, target: 1}", "`url` is missing"),
        ("{prometheus: {url: 'http://p'}, target: 1}", "`query` is missing"),
        ("{prometheus: {url: 'ftp://p', query: x}, target: 1}", "not the address of a server"),
        ("{prometheus: {url: 'http://u:w@p', query: x}, target: 1}", "would stand in the journal"),
        ("{prometheus: {url: 'http://p/?a=1', query: x}, target: 1}", "not the address of a server"),
        ("{prometheus: {serverAddress: 'http://p', query: x}, target: 1}", "did you mean `url`?"),
    ],
)
def test_a_metric_that_cannot_be(text: str, said: str) -> None:
    assert said in str(refused(f"{HEAD}{POLICY}metrics: [{text}]"))


def test_a_window() -> None:
    found = service(
        f"{POLICY}schedule: [{{cron: '0  8 * * 1-5', timezone: '-03:30', duration: 10h, min_replicas: 5}},"
        " {cron: '*/30 * * * *', duration: 1m, min_replicas: 9, timezone: UTC}]"
    )
    assert found.scaling.schedule == (
        Window(cron="0 8 * * 1-5", duration_ms=36_000_000, min_replicas=5, offset_minutes=-210),
        Window(cron="*/30 * * * *", duration_ms=60_000, min_replicas=9),
    )
    assert of_service(found)["service.replica_policy.schedule"][1] == (
        "0 8 * * 1-5 UTC-03:30 for 10h: 5; */30 * * * * UTC for 1m: 9"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{duration: 1h, min_replicas: 2}", "`cron` is missing"),
        ("{cron: '0 8 * * *', min_replicas: 2}", "`duration` is missing"),
        ("{cron: '0 8 * * *', duration: 1h}", "`min_replicas` is missing"),
        ("{cron: '0 8 * *', duration: 1h, min_replicas: 2}", "has 4"),
        ("{cron: '0 8 31 2 *', duration: 1h, min_replicas: 2}", "no year has a day"),
        ("{cron: '0 8 * * *', duration: 1s, min_replicas: 2}", "out of range"),
        ("{cron: '0 8 * * *', duration: 1h, min_replicas: 10}", "`max_replicas` is 9"),
        ("{cron: '0 8 * * *', duration: 1h, min_replicas: 2, timezone: Europe/Paris}", "summer time"),
        ("{cron: '0 8 * * *', duration: 1h, min_replicas: 2, timezone: '+15:00'}", "summer time"),
        ("{start: '0 8 * * *', duration: 1h, min_replicas: 2}", "did you mean `cron`?"),
        ("{cron: '0 8 * * *', end: '0 18 * * *', min_replicas: 2}", "duration: 10h"),
        ("{cron: '0 8 * * *', duration: 1h, desiredReplicas: 2}", "did you mean `min_replicas`?"),
    ],
)
def test_a_window_that_cannot_be(text: str, said: str) -> None:
    assert said in str(refused(f"{HEAD}{POLICY}schedule: [{text}]"))
