"""What the command line says of services: tables, lines, ends, plans."""

import re
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.scenarios.home import fleet, node
from tests.unit.app.test_serving import ADDRESS, looked, up
from tests.unit.app.worlds import HERE, submission
from tests.unit.explain.served import Served, service

from steersman.app import serving, views
from steersman.app.cli import key, status, table, terminal, watch
from steersman.app.cli.changes import say_declared
from steersman.app.cli.terminal import GAP_CELLS, fitted
from steersman.app.cli.up import _say_ends, _settled
from steersman.app.declare import compare, read
from steersman.app.planning import foresee, plan_view
from steersman.app.wire import ChangeView, DeclaredView, RevisionView, Row, ServiceRow, UpView
from steersman.engine.preview import preview
from steersman.engine.stats import Tally
from steersman.model.snapshot import Snapshot

SERVING = ServiceRow(
    name="digits",
    phase="serving",
    settled=True,
    ready=2,
    target=2,
    min_replicas=1,
    max_replicas=4,
    revision=3,
    requests_per_second=1520.4,
    errors_per_second=0.0,
    p50_ms=1.234,
    p95_ms=4.5,
    p99_ms=12.0,
    queue=0,
    url="http://127.0.0.1:8000/predict/digits",
    code="serving",
    reason="2 replicas are ready, of revision 3",
)
FAILED = replace(
    SERVING, failed=4, fix="see its log (steer logs digits.7); mend it", reason="revision 4 was given up"
)
WAITING = replace(
    SERVING, phase="waiting", ready=0, target=1, revision=0, url="", p99_ms=None, queue=None, reason="no room"
)


def test_a_line_of_the_table() -> None:
    assert table.service_rows([SERVING]) == [
        (
            "digits",
            "serving",
            "2/2 (1-4)",
            "3",
            "1520",
            "1.23 ms",
            "4.5 ms",
            "12 ms",
            "0",
            "0",
            "http://127.0.0.1:8000/predict/digits",
            "2 replicas are ready, of revision 3",
        )
    ]
    assert table.service_rows([WAITING])[0][2:9] == (
        "0/1 (1-4)",
        "-",
        "1520",
        "1.23 ms",
        "4.5 ms",
        "-",
        "-",
    )


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_table_fits_its_terminal(width: int) -> None:
    found = fitted(table.SERVICE_HEAD, table.service_rows([SERVING, WAITING]), width)
    assert sum(max(map(len, column)) + GAP_CELLS for column in found) - GAP_CELLS <= width
    heads = [column[0] for column in found]
    assert heads[:3] == ["SERVICE", "PHASE", "READY"]
    assert heads[-1] == "REASON"
    assert {"P99", "QUEUE"} & set(heads) or width < 80


def test_lines_tell_changes_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = watch.Lines()
    job = Row(
        name="train", phase="active", settled=False, run="train.3", run_state="running", reason="placed"
    )
    for rows in ((WAITING, job), (WAITING, job), (SERVING, job), (replace(SERVING, rolling=4), job)):
        lines.show(rows)
    assert capsys.readouterr().err.splitlines() == [
        "digits: waiting (0/1): no room",
        "train: running: placed",
        "digits: serving (2/2, revision 3): 2 replicas are ready, of revision 3",
        "digits: serving (2/2, revision 3 → 4): 2 replicas are ready, of revision 3",
    ]


def test_who_failed_has_the_last_word(capsys: pytest.CaptureFixture[str]) -> None:
    failed = replace(FAILED, failing="digits.7", said="no such operator\x1b[2J; hint: export it again")
    job = Row(
        name="train", phase="failed", settled=True, reason="out of its memory", fix="raise resources.memory"
    )
    idle = replace(SERVING, phase="scaled-to-zero", ready=0, target=0, reason="none is kept")
    _say_ends({"digits": failed, "idle": idle, "train": job})
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "digits serving (2/2, revision 3): revision 4 was given up",
        "    digits.7 said last: no such operator\\u001b[2J; hint: export it again",
        "digits scaled-to-zero (0/0, revision 3): none is kept",
        "    http://127.0.0.1:8000/predict/digits",
        "train failed: out of its memory",
    ]
    assert said.err.splitlines()[-1] == (
        "hint: raise resources.memory; steer explain train; steer logs train"
    )


def test_a_gateway_that_listens_elsewhere_is_warned_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    home = up()
    live = serving.Live(looked(home), replace(ADDRESS, port=41234))
    warning = "warning: port 8000 is taken; the gateway listens on 41234 instead"
    status._once(views.status(home.snapshot, Tally().stats(0, 0), views.no_progress, live))
    assert capsys.readouterr().err.splitlines() == [warning]
    status._one(serving.view(home.snapshot, home.service(), live), as_json=False)
    assert capsys.readouterr().err.splitlines()[0] == warning


def test_a_latency_that_is_not_known_has_no_unit() -> None:
    found = RevisionView(revision=1, state="serving", p50_ms=1.5, p95_ms=2.0)
    _, latency, _ = status._revision_lines(found)
    assert latency == "    p50 1.5, p95 2, p99 -; on average - waiting, - model, - the rest"


def test_what_is_declared_is_said_with_all_that_changes(capsys: pytest.CaptureFixture[str]) -> None:
    change = ChangeView(path="port", before="8000", after="8443")
    idle = DeclaredView(name="digits", kind="created", service=True, note="nothing runs until asked")
    say_declared(UpView(workloads=(idle,), gateway="door", gateway_changes=(change,), fleet="here"))
    assert capsys.readouterr().out.splitlines() == [
        "~ fleet here",
        "~ gateway door",
        "    port: 8000 → 8443",
        "+ digits: declared",
        "    nothing runs until asked",
    ]


def test_no_keys_are_none_now() -> None:
    assert key.NO_KEYS.startswith("there are no keys now")


def test_both_kinds_are_shown_live() -> None:
    job = Row(name="train", phase="active", settled=False)
    assert len(watch._tables(terminal, (SERVING, job)).renderables) == 4
    assert len(watch._tables(terminal, (SERVING,)).renderables) == 2


def test_how_waiting_ends(capsys: pytest.CaptureFixture[str]) -> None:
    idle = replace(SERVING, phase="scaled-to-zero", ready=0, target=0, url="", reason="scaled to zero")
    rows = {"a": SERVING, "b": FAILED, "c": WAITING, "d": idle}
    assert _settled(rows)
    _say_ends(rows)
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "digits serving (2/2, revision 3): 2 replicas are ready, of revision 3",
        "    http://127.0.0.1:8000/predict/digits",
        "digits serving (2/2, revision 3): revision 4 was given up",
        "digits is pending: waiting (0/1): no room",
        "digits scaled-to-zero (0/0, revision 3): scaled to zero",
    ]
    assert said.err.splitlines() == [
        "hint: see its log (steer logs digits.7); mend it",
        "hint: steer explain digits",
    ]


def test_one_service_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    home = up()
    found = serving.view(home.snapshot, home.service(), serving.Live(looked(home), ADDRESS))
    status._one(found, as_json=False)
    said = capsys.readouterr().out
    assert "  before any replica: 2 waiting; ended: 5 invalid" in said
    assert "  revision 1 serving: 60 ok, 5 timeout" in said
    ms = "[0-9.]+ ms"
    stages = rf"p50 [0-9.]+, p95 [0-9.]+, p99 {ms}; on average {ms} waiting, {ms} model, {ms} the rest"
    assert re.search(stages, said)
    assert "batches of 4 rows, 0 under way, 0 retried" in said
    assert "CPU-seconds per thousand predictions, the gateway included" in said
    assert "  digits.1 (revision 1) ready on a, run digits.1." in said
    status._one(found, as_json=True)
    assert '"replicas"' in capsys.readouterr().out


# Plans.


SERVICE = "kind: service\nname: digits\nmodel: {callable: 'm:f'}\nworkdir: .\nresources: {cpus: 1}\n"


def test_a_plan_goes_on_to_the_replicas(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def f(x):\n    return x\n")
    parsed = read(submission(SERVICE, folder=str(tmp_path)), HERE)
    found = compare(parsed, Snapshot(), HERE)
    shown = plan_view(found, foresee(preview(Snapshot(), found.events, 1_000)))
    assert shown.changed
    words = {(each.kind, each.workload): each.words for each in shown.decisions}
    assert words["revise", "digits"] == "begin revision 1: the first revision"
    assert words["spawn", "digits"] == "add digits.1 of revision 1: it should have 1 replica"
    assert words["start", "digits.1"].startswith("start run digits.1.")
    assert words["spawn", "steersman.gateway"].startswith("add steersman.gateway: ")


@pytest.mark.parametrize(
    ("policy", "begins_empty"),
    [
        ("{min_replicas: 0, max_replicas: 2}", True),
        ("{min_replicas: 0, initial_replicas: 1, max_replicas: 2}", False),
        ("{min_replicas: 1, max_replicas: 2}", False),
    ],
)
def test_a_plan_says_what_does_not_run_until_it_is_asked(
    tmp_path: Path, policy: str, *, begins_empty: bool
) -> None:
    (tmp_path / "m.py").write_text("def f(x):\n    return x\n")
    text = f"{SERVICE}service: {{replica_policy: {policy}}}\n"
    (view,) = compare(read(submission(text, folder=str(tmp_path)), HERE), Snapshot(), HERE).workloads
    assert ("then nothing runs until the first request" in view.note) == begins_empty


def test_a_plan_ends_where_the_world_has_to_act() -> None:
    home = Served(cores=1)
    home.serve(service())
    _, plan = preview(home.snapshot, [fleet(node("a", cores=4, gib=32))], home.now_ms)
    whole = foresee(preview(home.snapshot, [fleet(node("a", cores=4, gib=32))], home.now_ms))
    assert whole.decisions[: len(plan.decisions)] == plan.decisions
    assert foresee(preview(home.snapshot, (), home.now_ms)).decisions == ()
