"""What a submission becomes, against what is there: the right events, all of them or none."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.unit.app.worlds import FLEET, MACHINE, ended, folded, settle, submission

from steersman.app.declare import Declaration, Here, declare, declared_fleet, nearest
from steersman.app.wire import ChangeView, Submission
from steersman.decide.cycle import decide
from steersman.engine.preview import preview
from steersman.hosting import folders
from steersman.model.errors import SpecError
from steersman.model.events import FleetDeclared, Observed, RemoveRequested, StopRequested, WorkloadDeclared
from steersman.model.ids import WorkloadName
from steersman.model.snapshot import Phase, Snapshot
from steersman.model.workload import Workload


@pytest.fixture
def here(tmp_path: Path) -> Here:
    home = tmp_path / "home"
    home.mkdir()
    user = tmp_path / "user"
    user.mkdir()
    return Here(home=home, user=user, fleet=FLEET, secrets=("TOKEN",), machine=MACHINE)


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


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ("{name: a, cpus: 4, memory: 8GB}", []),
        ("{name: a, cpus: 64, memory: 8GB}", ["64 cores, this machine 4"]),
        ("{name: a, cpus: 3, memory: 1GB}, {name: b, cpus: 1.5, memory: 1GB}", ["4.5 cores, this machine 4"]),
        ("{name: a, cpus: 1, memory: 9GB}", ["9 GiB of memory, this machine 8 GiB"]),
        ("{name: a, cpus: 5, memory: 9GB}", ["5 cores", "9 GiB of memory"]),
    ],
)
def test_a_fleet_that_is_larger_than_its_machine_is_told(here: Here, nodes: str, words: list[str]) -> None:
    asked = submission(f"kind: fleet\nname: f\nnodes: [{nodes}]\n")
    found = declare(asked, Snapshot(), here)
    assert len(found.warnings) == len(words)
    for warning, word in zip(found.warnings, words, strict=True):
        assert word in warning
        assert "limits hold, but programs will share" in warning
    assert declare(asked, folded(Snapshot(), found.events), here).warnings == found.warnings


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
    with pytest.raises(SpecError, match=r"0\.yaml:3: workdir: the workdir") as caught:
        _workdir(text, here, tmp_path)
    assert caught.value.path == "workdir"


# What is in a workdir.


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A workdir with a script, a module, a link, and what is never copied."""
    code = tmp_path / "code"
    (code / "lib").mkdir(parents=True)
    (code / "train.py").write_text("print(1)\n")
    (code / "lib" / "a.py").write_text("A = 1\n")
    (code / "link").symlink_to("train.py")
    (code / "__pycache__").mkdir()
    (code / ".git").mkdir()
    return code


def _asked(code: Path) -> Submission:
    return submission(f"name: a\nrun: python train.py\nworkdir: {code}\n")


def _skipped(code: Path) -> None:
    (code / "__pycache__" / "train.pyc").write_bytes(b"1")
    (code / ".git" / "HEAD").write_text("x")
    (code / "venv").mkdir()
    (code / "venv" / "pyvenv.cfg").write_text("")


def _touched(code: Path) -> None:
    os.utime(code / "train.py", (1, 1))


def _relinked(code: Path) -> None:
    (code / "link").unlink()
    (code / "link").symlink_to("lib/a.py")


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (lambda code: (code / "train.py").write_text("print(2)\n"), True),
        (lambda code: (code / "lib" / "a.py").write_text("A = 2\n"), True),
        (lambda code: (code / "new.txt").write_text(""), True),
        (lambda code: (code / "lib" / "a.py").rename(code / "lib" / "b.py"), True),
        (lambda code: (code / "train.py").chmod(0o755), True),
        (lambda code: (code / "link").unlink(), True),
        (_relinked, True),
        (lambda code: (code / "empty").mkdir(), True),
        (_skipped, False),
        (_touched, False),
    ],
    ids=["script", "below", "added", "renamed", "executable", "removed", "link", "folder", "skipped", "time"],
)
def test_a_job_whose_files_changed_is_changed(
    here: Here, code: Path, edit: Callable[[Path], object], *, changed: bool
) -> None:
    snapshot = settle(Snapshot(), declare(_asked(code), Snapshot(), here).events)
    snapshot = ended(snapshot, "a", 0)
    assert kinds(declare(_asked(code), snapshot, here)) == ["a unchanged"]
    edit(code)
    found = declare(_asked(code), snapshot, here)
    assert kinds(found) == ["a changed restarts" if changed else "a unchanged"]
    if changed:
        change = ChangeView(path="workdir", before=str(code), after=str(code), note="its files changed")
        assert found.workloads[0].changes == (change,)
        assert folded(snapshot, found.events).workloads["a"].phase is Phase.DECLARED


def test_a_workdir_declared_by_an_older_build_is_not_called_changed(here: Here, code: Path) -> None:
    (fleet, event) = declare(_asked(code), Snapshot(), here).events
    assert isinstance(event, WorkloadDeclared)
    assert event.workload.body.workdir_digest is not None
    old = replace(event, workload=_without_digest(event.workload))
    assert kinds(declare(_asked(code), settle(Snapshot(), [fleet, old]), here)) == ["a unchanged"]


def _without_digest(workload: Workload) -> Workload:
    return replace(workload, body=replace(workload.body, workdir_digest=None))


def test_a_workdir_that_is_too_large_or_unreadable(
    here: Here, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "WORKDIR_FILES_MAX", 2)
    with pytest.raises(SpecError, match=r"0\.yaml:3: workdir: .*is larger than") as caught:
        declare(_asked(code), Snapshot(), here)
    assert "keep data out" in caught.value.hint
    monkeypatch.undo()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(code / "train.py"))

    monkeypatch.setattr("hashlib.file_digest", refuse)  # root, who may run this, may read anything
    with pytest.raises(SpecError, match=r"workdir: '.*train\.py' in the workdir cannot be read"):
        declare(_asked(code), Snapshot(), here)


def test_the_digest_is_of_what_the_driver_copies(code: Path, tmp_path: Path) -> None:
    _skipped(code)
    home = tmp_path / "driver-home"
    copy = folders.place_workdir(home, "a-1", str(code))
    assert folders.workdir_digest(copy) == folders.workdir_digest(code)
    assert not (copy / ".git").exists()


def test_files_of_one_workdir_are_read_once(here: Here, code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    def counted(path: Path) -> str:
        seen.append(path)
        return folders.workdir_digest(path)

    monkeypatch.setattr("steersman.app.placing.workdir_digest", counted)
    texts = [f"name: {name}\nrun: x\nworkdir: {code}\n" for name in "abc"]
    declare(submission(*texts), Snapshot(), here)
    assert seen == [code]


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
