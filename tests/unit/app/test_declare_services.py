"""Services and the gateway in a submission: the right events, the right files, and names that are taken."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.certificates import make_pair
from tests.unit.app.worlds import FLEET, MACHINE, folded, submission

from steersman.app import model_files
from steersman.app.declare import Declaration, Here, compare, declare, read, store
from steersman.app.wire import ChangeView, Submission
from steersman.model.errors import HomeError, SpecError
from steersman.model.events import Event, GatewayDeclared, RemoveRequested, ServiceDeclared, StopRequested
from steersman.model.ids import WorkloadName
from steersman.model.service import CallableModel, Gateway, OnnxModel, Service
from steersman.model.snapshot import Revision, Snapshot
from steersman.model.table import Table

MODEL = b"an ONNX file, as far as a declaration goes"
DIGEST = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def here(tmp_path: Path) -> Here:
    for name in ("home", "user"):
        (tmp_path / name).mkdir()
    return Here(
        home=tmp_path / "home", user=tmp_path / "user", fleet=FLEET, secrets=("TOKEN",), machine=MACHINE
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the documents stand: a model, a module, an interpreter."""
    folder = tmp_path / "project"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "m.onnx").write_bytes(MODEL)
    (folder / "service.py").write_text("def model(x): return x\n")
    (folder / "python").write_text("#!/bin/sh\n")
    (folder / "python").chmod(0o755)
    return folder


ONNX = "name: s\nmodel: {onnx: models/m.onnx}\n"
CALLABLE = "name: s\nmodel: {callable: 'service:model'}\n"
JOB = "name: train\nrun: x\nartifacts: {model: m}\n"
SERVED = "name: s\nmodel: {artifact: train/model}\n"


def asked(folder: Path, *texts: str) -> Submission:
    return submission(*texts, folder=str(folder))


def declared(found: Declaration) -> Service:
    (event,) = [event for event in found.events if isinstance(event, ServiceDeclared)]
    return event.service


def kinds(found: Declaration) -> list[str]:
    return [f"{each.name} {each.kind}{' restarts' if each.restarts else ''}" for each in found.workloads]


def after(found: Declaration, *events: Event) -> Snapshot:
    return folded(Snapshot(), [*found.events, *events])


# Models.


def test_an_onnx_file_is_named_by_its_content(here: Here, folder: Path) -> None:
    model = declared(declare(asked(folder, ONNX), Snapshot(), here)).model
    assert model == OnnxModel(path=str(folder / "models" / "m.onnx"), digest=f"sha256:{DIGEST}")
    text = f"name: s\nworkdir: {folder}/models\nmodel: {{onnx: ../models/m.onnx}}\n"
    assert declared(declare(asked(Path("/"), text), Snapshot(), here)).model == model
    (here.user / "m.onnx").write_bytes(MODEL)
    found = declared(declare(asked(folder, "model: {onnx: ~/m.onnx}\n"), Snapshot(), here)).model
    assert found == OnnxModel(path=str(here.user / "m.onnx"), digest=f"sha256:{DIGEST}")


def test_a_plan_stores_nothing_and_up_stores_whole_files_once(here: Here, folder: Path) -> None:
    parsed = read(
        asked(folder, ONNX, ONNX.replace("name: s", "name: t"), CALLABLE.replace("s\n", "c\n", 1)), here
    )
    compare(parsed, Snapshot(), here)
    assert list(here.home.iterdir()) == []
    store(parsed, here.home)
    kept = here.home / "artifacts" / "sha256" / DIGEST
    assert kept.read_bytes() == MODEL
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    before = kept.stat().st_mtime_ns
    store(parsed, here.home)
    assert [path.name for path in kept.parent.iterdir()] == [DIGEST]
    assert kept.stat().st_mtime_ns == before


def test_a_model_that_changes_between_reading_and_storing_is_told(here: Here, folder: Path) -> None:
    parsed = read(asked(folder, ONNX), here)
    (folder / "models" / "m.onnx").write_bytes(b"other")
    with pytest.raises(SpecError, match=r"0\.yaml:2: model\.onnx: .* was changed while it was read"):
        store(parsed, here.home)
    assert list((here.home / "artifacts" / "sha256").iterdir()) == []
    (folder / "models" / "m.onnx").unlink()
    with pytest.raises(SpecError, match="does not exist"):
        store(parsed, here.home)


def test_a_store_that_cannot_be_written(here: Here, folder: Path) -> None:
    (here.home / "artifacts").write_text("in the way")
    with pytest.raises(HomeError, match="cannot keep a model"):
        store(read(asked(folder, ONNX), here), here.home)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (Path.unlink, "does not exist"),
        (_folder, "is not a file"),
        (_fifo, "is not a file"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"x" * 65), "is larger than"),
    ],
)
def test_models_that_cannot_be_served(
    here: Here, folder: Path, monkeypatch: pytest.MonkeyPatch, break_it: Callable[[Path], object], words: str
) -> None:
    monkeypatch.setattr(model_files, "MODEL_BYTES_MAX", 64)
    break_it(folder / "models" / "m.onnx")
    with pytest.raises(SpecError, match=rf"0\.yaml:2: model\.onnx: the model .* {words}") as caught:
        read(asked(folder, ONNX), here)
    assert caught.value.hint


@pytest.mark.parametrize("call", ["os.open", "os.read"])
def test_a_model_that_cannot_be_read(
    here: Here, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(call, refuse)  # root, who may run this, may read anything
        with pytest.raises(SpecError, match="cannot be read: Input/output error"):
            model_files.model_digest(folder / "models" / "m.onnx")


def test_a_model_with_other_content_is_a_change(here: Here, folder: Path) -> None:
    snapshot = after(declare(asked(folder, ONNX), Snapshot(), here))
    assert declare(asked(folder, ONNX), snapshot, here).events == ()
    path = folder / "models" / "m.onnx"
    path.write_bytes(b"other")
    found = declare(asked(folder, ONNX), snapshot, here)
    change = ChangeView(path="model.onnx", before=str(path), after=str(path), note="its files changed")
    assert (kinds(found), found.workloads[0].changes) == (["s changed restarts"], (change,))


# Callables.


def test_a_callable_lives_beside_its_document_or_in_its_workdir(here: Here, folder: Path) -> None:
    found = declared(declare(asked(folder, CALLABLE), Snapshot(), here))
    assert found.workdir == str(folder)
    assert (found.workdir_digest or "").startswith("sha256:")
    text = CALLABLE.replace("'}", "', python: ../python}") + "workdir: models\n"
    found = declared(declare(asked(folder, text), Snapshot(), here))
    assert found.workdir == str(folder / "models")
    assert found.model == CallableModel(target="service:model", python=str(folder / "python"))
    bare = CALLABLE.replace("'}", "', python: python3.12}")
    assert declared(declare(asked(folder, bare), Snapshot(), here)).model == CallableModel(
        target="service:model", python="python3.12"
    )


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        (CALLABLE + "workdir: nowhere\n", "workdir", "does not exist"),
        (CALLABLE.replace("'}", "', python: .venv/bin/python}"), "model.python", "does not exist"),
        (CALLABLE.replace("'}", "', python: ./service.py}"), "model.python", "is not a program"),
        (CALLABLE.replace("'}", "', python: ./models}"), "model.python", "is not a program"),
        (CALLABLE + "secrets: [OTHER]\n", "secrets.OTHER", "needs the secret 'OTHER'"),
    ],
)
def test_callables_that_cannot_be_started(here: Here, folder: Path, text: str, path: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        declare(asked(folder, text), Snapshot(), here)
    assert caught.value.path == path


def test_a_callable_whose_module_changed_is_changed(here: Here, folder: Path) -> None:
    snapshot = after(declare(asked(folder, CALLABLE), Snapshot(), here))
    (folder / "service.py").write_text("def model(x): return x + 1\n")
    assert kinds(declare(asked(folder, CALLABLE), snapshot, here)) == ["s changed restarts"]


# Against what is there.


def test_what_needs_a_new_revision_says_so(here: Here, folder: Path) -> None:
    snapshot = after(declare(asked(folder, ONNX), Snapshot(), here))
    for text, expected in (
        ("service: {replicas: 3}\n", "s changed"),
        ("service: {max_batch_size: 3}\n", "s changed restarts"),
        ("resources: {cpus: 2}\n", "s changed restarts"),
    ):
        found = declare(asked(folder, ONNX + text), snapshot, here)
        (event,) = found.events
        assert isinstance(event, ServiceDeclared)
        assert (kinds(found), event.restarts) == ([expected], "restarts" in expected)


@pytest.mark.parametrize("event", [StopRequested, RemoveRequested])
def test_a_service_on_its_way_out_is_asked_for_again_as_it_was(
    here: Here, folder: Path, event: type[StopRequested] | type[RemoveRequested]
) -> None:
    snapshot = after(declare(asked(folder, ONNX), Snapshot(), here), event(workload=WorkloadName("s")))
    found = declare(asked(folder, ONNX), snapshot, here)
    (again,) = found.events
    assert isinstance(again, ServiceDeclared)
    assert (kinds(found), again.restarts) == (["s again restarts"], False)
    state = folded(snapshot, found.events).services["s"]
    assert (state.stop_requested, state.removing) == (False, False)


def test_a_service_whose_revision_was_given_up_tries_again(here: Here, folder: Path) -> None:
    snapshot = after(declare(asked(folder, ONNX), Snapshot(), here))
    state = snapshot.services["s"]
    revision = Revision(number=1, generation=1, spec=state.spec, model_digest=None, begun_ms=0)
    failed = replace(snapshot, services=Table.of([("s", replace(state, failed=revision))]))
    (event,) = declare(asked(folder, ONNX), failed, here).events
    assert isinstance(event, ServiceDeclared)
    assert event.restarts


def test_a_name_does_not_change_its_kind(here: Here, folder: Path) -> None:
    service = after(declare(asked(folder, ONNX), Snapshot(), here))
    with pytest.raises(SpecError, match="'s' is a service, and is declared as a job here") as caught:
        declare(asked(folder, "name: s\nrun: x\n"), service, here)
    assert caught.value.hint.startswith("steer down s first")
    leaving = folded(service, [RemoveRequested(workload=WorkloadName("s"))])
    with pytest.raises(SpecError, match="is a service"):
        declare(asked(folder, "name: s\nrun: x\n"), leaving, here)
    job = after(declare(asked(folder, "name: s\nrun: x\n"), Snapshot(), here))
    with pytest.raises(SpecError, match="'s' is a job, and is declared as a service here"):
        declare(asked(folder, ONNX), job, here)


def test_an_artifact_of_a_job_that_is_declared_nowhere_is_waited_for(here: Here, folder: Path) -> None:
    found = declare(asked(folder, SERVED), Snapshot(), here)
    assert kinds(found) == ["s created restarts"]
    (warning,) = found.warnings
    assert warning.startswith("0.yaml:2: model.artifact: no job 'train' is declared: the service waits")
    (warning,) = declare(asked(folder, SERVED, JOB.replace("train", "trian")), Snapshot(), here).warnings
    assert "did you mean 'trian'?" in warning
    job = after(declare(asked(folder, JOB), Snapshot(), here))
    assert declare(asked(folder, SERVED), job, here).warnings == ()
    leaving = folded(job, [RemoveRequested(workload=WorkloadName("train"))])
    assert len(declare(asked(folder, SERVED), leaving, here).warnings) == 1


def test_an_artifact_that_its_job_does_not_leave_is_refused(here: Here, folder: Path) -> None:
    job = after(declare(asked(folder, JOB), Snapshot(), here))
    wrong = SERVED.replace("train/model", "train/modle")
    with pytest.raises(SpecError, match="'s' needs 'modle' of 'train', which leaves no such") as caught:
        declare(asked(folder, wrong), job, here)
    assert "did you mean 'model'?" in caught.value.hint


def test_nothing_comes_out_of_a_service_that_is_there(here: Here, folder: Path) -> None:
    service = after(declare(asked(folder, ONNX), Snapshot(), here))
    with pytest.raises(SpecError, match="is a service and leaves none"):
        declare(asked(folder, "name: t\nmodel: {artifact: s/model}\n"), service, here)
    with pytest.raises(SpecError, match="is a service and leaves none"):
        declare(asked(folder, "name: j\nrun: x\ninputs: {M: s/model}\n"), service, here)


# The gateway.


def test_a_gateway_is_declared_when_it_changes(here: Here, folder: Path) -> None:
    found = declare(asked(folder, "kind: gateway\nname: door\nport: 1\n"), Snapshot(), here)
    assert [type(event).__name__ for event in found.events] == ["FleetDeclared", "GatewayDeclared"]
    assert found.gateway == "door"
    snapshot = after(found)
    assert snapshot.gateway == Gateway(name="door", port=1)
    again = declare(asked(folder, "kind: gateway\nname: door\nport: 1\n"), snapshot, here)
    assert (again.events, again.gateway) == ((), None)
    assert declare(asked(folder, "name: j\nrun: x\n"), snapshot, here).gateway is None
    (event,) = declare(asked(folder, "kind: gateway\nport: 2\n"), snapshot, here).events
    assert event == GatewayDeclared(gateway=Gateway(port=2))
    with pytest.raises(SpecError, match="two gateways"):
        declare(asked(folder, "kind: gateway\n", "kind: gateway\n"), snapshot, here)


TLS = "kind: gateway\ntls: {certificate: c.pem, private_key: k.pem}\n"


def test_an_address_of_another_machine(here: Here, folder: Path) -> None:
    text = "kind: gateway\naddress: 203.0.113.9\nkeys: required\n"
    with pytest.raises(SpecError, match=r"address: this machine cannot listen on 203\.0\.113\.9"):
        declare(asked(folder, text), Snapshot(), here)


def test_the_files_of_tls(here: Here, folder: Path) -> None:
    with pytest.raises(SpecError, match=r"tls\.certificate: .*c\.pem' does not exist"):
        declare(asked(folder, TLS), Snapshot(), here)
    (folder / "c.pem").mkdir()
    with pytest.raises(SpecError, match="is not a file that can be read"):
        declare(asked(folder, TLS), Snapshot(), here)
    (folder / "c.pem").rmdir()
    for name in ("c.pem", "k.pem"):
        (folder / name).write_text("x")
    with pytest.raises(SpecError, match="are no certificate and its key"):
        declare(asked(folder, TLS), Snapshot(), here)
    certificate, key = make_pair(folder, "mine")
    certificate.rename(folder / "c.pem")
    make_pair(folder, "another's")
    key.rename(folder / "k.pem")
    with pytest.raises(SpecError, match="are no certificate and its key"):
        declare(asked(folder, TLS), Snapshot(), here)
    certificate, key = make_pair(folder, "mine")
    certificate.rename(folder / "c.pem")
    key.rename(folder / "k.pem")
    found = declare(asked(folder, TLS), Snapshot(), here)
    event = found.events[-1]
    assert isinstance(event, GatewayDeclared)
    assert event.gateway.certificate == str(folder / "c.pem")
    assert event.gateway.private_key == str(folder / "k.pem")
    assert found.warnings == ()
    (folder / "k.pem").chmod(0o644)
    (warning,) = declare(asked(folder, TLS), Snapshot(), here).warnings
    assert "others on this machine may use it (mode 0644)" in warning
