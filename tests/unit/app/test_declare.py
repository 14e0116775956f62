"""What a submission becomes, against what is there: the right events, all of them or none."""

from pathlib import Path

import pytest
from tests.unit.app.worlds import FLEET, ended, folded, settle, submission

from steersman.app.declare import Declaration, Here, declare, declared_fleet, nearest
from steersman.decide.cycle import decide
from steersman.engine.preview import preview
from steersman.model.errors import SpecError
from steersman.model.events import FleetDeclared, Observed, RemoveRequested, StopRequested, WorkloadDeclared
from steersman.model.ids import WorkloadName
from steersman.model.snapshot import Phase, Snapshot


@pytest.fixture
def here(tmp_path: Path) -> Here:
    home = tmp_path / "home"
    home.mkdir()
    user = tmp_path / "user"
    user.mkdir()
    return Here(home=home, user=user, fleet=FLEET, secrets=("TOKEN",))


def kinds(found: Declaration) -> list[str]:
    return [f"{each.name} {each.kind}{' restarts' if each.restarts else ''}" for each in found.workloads]


def test_the_first_declaration_brings_a_fleet(here: Here) -> None:
    found = declare(submission("name: a\nrun: echo\n"), Snapshot(), here)
    assert [type(event) for event in found.events] == [FleetDeclared, WorkloadDeclared]
    assert found.fleet == "here"
    assert kinds(found) == ["a created restarts"]


def test_a_declared_fleet_is_kept_whole(here: Here) -> None:
    fleet = (
        "kind: fleet\nname: f\nnodes: [{name: z, cpus: 2, memory: 1GB}, {name: b, cpus: 1, memory: 1GB}]\n"
    )
    found = declare(submission(fleet), Snapshot(), here)
    (event,) = found.events
    assert isinstance(event, FleetDeclared)
    snapshot = folded(Snapshot(), found.events)
    assert declared_fleet(snapshot) == event.fleet
    again = declare(submission(fleet), snapshot, here)
    assert (again.events, again.fleet) == ((), None)
    other = declare(submission("name: a\nrun: echo\n"), snapshot, here)
    assert [type(event) for event in other.events] == [WorkloadDeclared]
    changed = declare(submission(fleet.replace("cpus: 2", "cpus: 3")), snapshot, here)
    assert (len(changed.events), changed.fleet) == (1, "f")


def test_saying_it_again_changes_nothing(here: Here) -> None:
    first = declare(submission("name: a\nrun: echo\n"), Snapshot(), here)
    snapshot = settle(Snapshot(), first.events)
    again = declare(submission("name: a\nrun: echo\n"), snapshot, here)
    assert again.events == ()
    assert kinds(again) == ["a unchanged"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nrun: echo\npriority: 5\n", "a changed"),
        ("name: a\nrun: echo 2\n", "a changed restarts"),
        ("name: a\nrun: echo\nresources: {cpus: 2}\n", "a changed restarts"),
    ],
)
def test_changes_say_whether_they_restart(here: Here, text: str, expected: str) -> None:
    snapshot = settle(Snapshot(), declare(submission("name: a\nrun: echo\n"), Snapshot(), here).events)
    found = declare(submission(text), snapshot, here)
    (event,) = found.events
    assert isinstance(event, WorkloadDeclared)
    assert kinds(found) == [expected]
    assert event.restarts is ("restarts" in expected)
    assert found.workloads[0].changes


@pytest.mark.parametrize(
    ("exit_code", "phase", "kind"),
    [(0, Phase.SUCCEEDED, "a unchanged"), (1, Phase.FAILED, "a again restarts")],
)
def test_what_ended(here: Here, exit_code: int, phase: Phase, kind: str) -> None:
    asked = submission("name: a\nrun: echo\n")
    snapshot = settle(Snapshot(), declare(asked, Snapshot(), here).events)
    snapshot = ended(snapshot, "a", exit_code)
    assert snapshot.workloads["a"].phase is phase
    found = declare(asked, snapshot, here)
    assert kinds(found) == [kind]
    after = folded(snapshot, found.events)
    assert after.workloads["a"].phase is (phase if exit_code == 0 else Phase.DECLARED)


@pytest.mark.parametrize("event", [StopRequested, RemoveRequested])
def test_what_is_on_its_way_out_is_asked_for_again(
    here: Here, event: type[StopRequested] | type[RemoveRequested]
) -> None:
    asked = submission("name: a\nrun: echo\n")
    snapshot = settle(Snapshot(), declare(asked, Snapshot(), here).events)
    snapshot = folded(snapshot, [event(workload=WorkloadName("a"))])
    found = declare(asked, snapshot, here)
    assert kinds(found) == ["a again restarts"]
    state = folded(snapshot, found.events).workloads["a"]
    assert (state.stop_requested, state.removing) == (False, False)


def test_one_error_and_nothing_counts(here: Here) -> None:
    with pytest.raises(SpecError, match=r"1\.yaml"):
        declare(submission("name: a\nrun: echo\n", "name: b\nrunn: echo\n"), Snapshot(), here)
    with pytest.raises(SpecError, match="two workloads called 'a'"):
        declare(submission("name: a\nrun: echo\n", "name: a\nrun: echo\n"), Snapshot(), here)


# Workdirs.


def _workdir(text: str, here: Here, folder: Path) -> str | None:
    found = declare(
        submission(f"name: a\nrun: echo\nworkdir: {text}\n", folder=str(folder)), Snapshot(), here
    )
    event = found.events[-1]
    assert isinstance(event, WorkloadDeclared)
    return event.workload.body.workdir


def test_workdirs_are_absolute(here: Here, tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (here.user / "code").mkdir()
    assert _workdir(".", here, inner) == str(inner)
    assert _workdir("b", here, tmp_path / "a") == str(inner)
    assert _workdir("../../a", here, inner) == str(tmp_path / "a")
    assert _workdir(str(inner), here, Path("/")) == str(inner)
    assert _workdir("~/code", here, inner) == str(here.user / "code")


@pytest.mark.parametrize("text", ["missing", "file", "~nobody/x", "~/none"])
def test_workdirs_that_are_not_there(here: Here, tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match=r"0\.yaml:1: workdir: the workdir") as caught:
        _workdir(text, here, tmp_path)
    assert caught.value.path == "workdir"


def test_a_workdir_around_the_home(here: Here, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="contains Steersman's home"):
        _workdir(".", here, tmp_path)


def test_a_folder_that_is_not_absolute(here: Here) -> None:
    with pytest.raises(SpecError, match="not absolute"):
        declare(submission("name: a\nrun: echo\n", folder="relative"), Snapshot(), here)


# Secrets and inputs.


def test_secrets_must_be_set(here: Here) -> None:
    declare(submission("name: a\nrun: echo\nsecrets: [TOKEN]\n"), Snapshot(), here)
    with pytest.raises(SpecError, match="needs the secret 'OTHER'") as caught:
        declare(submission("name: a\nrun: echo\nsecrets: [OTHER]\n"), Snapshot(), here)
    assert caught.value.hint == "steer secret set OTHER"


MAKER = "name: maker\nrun: echo\nartifacts: {model: m.bin}\n"


def test_inputs_within_and_from_before(here: Here) -> None:
    user = "name: user\nrun: echo\ninputs: {m: maker/model}\n"
    both = declare(submission(MAKER, user), Snapshot(), here)
    assert kinds(both) == ["maker created restarts", "user created restarts"]
    snapshot = settle(Snapshot(), declare(submission(MAKER), Snapshot(), here).events)
    assert kinds(declare(submission(user), snapshot, here)) == ["user created restarts"]


def test_inputs_that_lead_nowhere(here: Here) -> None:
    snapshot = settle(Snapshot(), declare(submission(MAKER), Snapshot(), here).events)
    with pytest.raises(SpecError, match="'makre', which is declared nowhere") as caught:
        declare(submission("name: user\nrun: echo\ninputs: {m: makre/model}\n"), snapshot, here)
    assert caught.value.hint == "did you mean 'maker'?"
    with pytest.raises(SpecError, match="no such"):
        declare(submission("name: user\nrun: echo\ninputs: {m: maker/other}\n"), snapshot, here)
    removed = folded(snapshot, [RemoveRequested(workload=WorkloadName("maker"))])
    with pytest.raises(SpecError, match="declared nowhere"):
        declare(submission("name: user\nrun: echo\ninputs: {m: maker/model}\n"), removed, here)


def test_a_circle_through_what_was_declared_before(here: Here) -> None:
    chain = [MAKER]
    for before, after in (("maker", "b"), ("b", "c"), ("c", "d")):
        text = f"name: {after}\nrun: echo\ninputs: {{m: {before}/model}}\nartifacts: {{model: m.bin}}\n"
        chain.append(text)
    snapshot = settle(Snapshot(), declare(submission(*chain), Snapshot(), here).events)
    with pytest.raises(SpecError, match="wait for one another"):
        declare(submission(f"{MAKER}inputs: {{x: d/model}}\n"), snapshot, here)
    declare(
        submission(chain[1].replace("maker/model", "maker/model").replace("echo", "echo 2")), snapshot, here
    )


def test_a_plan_is_what_then_happens(here: Here) -> None:
    found = declare(submission("name: a\nrun: echo\n"), Snapshot(), here)
    _, plan = preview(Snapshot(), found.events, 5_000)
    snapshot = folded(Snapshot(), [Observed(now_ms=5_000), *found.events])
    assert plan.decisions == decide(snapshot).decisions
    assert [type(each).__name__ for each in plan.decisions] == ["Admit", "Start"]


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("digit", ["digits", "other"], "did you mean 'digits'?"),
        ("zzz", [], "no workload is declared"),
        ("zzz", ["a"], "there is: a"),
        ("zzz", list("abcdefg"), "there are: a, b, c, d, e …"),
    ],
)
def test_the_nearest_name(name: str, known: list[str], hint: str) -> None:
    assert nearest(name, known) == hint
