"""What names stand for, and what may be done with what has them: a real engine behind the control."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.unit.engine.rig import Rig, fleet, in_rig, running, workload
from tests.unit.explain.served import service

from steersman.app.control import Control
from steersman.app.settings import Settings
from steersman.app.wire import DownRequest, KeyRequest
from steersman.dataplane.shim.logs import LogWriter
from steersman.engine.parts import Parts
from steersman.guard.secrets import Secrets
from steersman.model.errors import ConflictError
from steersman.model.events import NodeHealth, ServiceDeclared, WorkloadDeclared
from steersman.model.ids import NodeId
from steersman.ports import run_dir

T = TypeVar("T")


class Desk:
    """A control over a rig's engine, in a folder of its own."""

    def __init__(self, rig: Rig, home: Path) -> None:
        parts: Parts = rig.engine._parts
        self.rig = rig
        self.home = home
        self.control = Control(rig.engine, parts, Secrets(home), Settings(home=home))

    async def ask(self, work: Awaitable[T]) -> T:
        """The answer to what takes part in the loop, while time passes."""
        asked = asyncio.ensure_future(work)
        for _ in range(10_000):
            await self.rig.clock.advance(1)
            if asked.done():
                return await asked
        raise AssertionError("nobody answers")

    def write_log(self, run: str, text: str) -> None:
        folder = self.home / run_dir.RUNS / run / "0" / run_dir.LOGS
        folder.mkdir(parents=True)
        LogWriter(str(folder / run_dir.LOG_FILE)).feed(text.encode())

    def run(self, name: str) -> str:
        found = self.rig.engine.snapshot.workloads[name].run
        assert found is not None
        return found


def at_desk(test: Callable[[Desk], Awaitable[None]]) -> Callable[[Path], None]:
    """Run a test with a service of two replicas and a job, all under way."""

    def whole(tmp_path: Path) -> None:
        async def inside(rig: Rig) -> None:
            desk = Desk(rig, tmp_path)
            async with running(rig):
                spec = service(scaling=None, stop_grace_ms=10)
                await rig.record(
                    fleet(cpu_milli=8_000),
                    ServiceDeclared(service=spec, digest=""),
                    WorkloadDeclared(workload=workload("train"), digest=""),
                )
                await rig.until(lambda: "digits.1" in rig.engine.snapshot.workloads)
                await rig.until(lambda: rig.engine.snapshot.workloads["digits.1"].run is not None)
                await test(desk)

        in_rig(inside)()

    whole.__name__, whole.__doc__ = test.__name__, test.__doc__
    return whole


async def refused(work: Awaitable[Any]) -> ConflictError:
    with pytest.raises(ConflictError) as error:
        await work
    assert error.value.hint
    return error.value


@at_desk
async def test_what_steersman_runs_itself_is_not_ended_by_its_own_name(desk: Desk) -> None:
    for name, code in (
        ("digits.1", "is-replica"),
        ("gateway", "is-gateway"),
        ("steersman.gateway", "is-gateway"),
    ):
        before = desk.rig.engine.snapshot.position
        for work in (desk.control.stop(name), desk.control.down(DownRequest(names=("train", name)))):
            error = await refused(work)
            assert error.code == code
        assert desk.rig.engine.snapshot.position == before
    assert "steer stop digits" in (await refused(desk.control.stop("digits.1"))).hint


@at_desk
async def test_all_means_what_people_declared(desk: Desk) -> None:
    answer = await desk.ask(desk.control.down(DownRequest(all=True)))
    assert answer.names == ("digits", "train")
    await desk.rig.until(
        lambda: not desk.rig.engine.snapshot.services and not desk.rig.engine.snapshot.workloads
    )


@at_desk
async def test_a_service_is_stopped_by_its_name(desk: Desk) -> None:
    answer = await desk.ask(desk.control.stop("digits"))
    assert answer.names == ("digits",)
    assert desk.rig.engine.snapshot.services["digits"].stop_requested
    again = await desk.control.stop("digits")
    assert again.position == desk.rig.engine.snapshot.position


@at_desk
async def test_logs_by_name(desk: Desk) -> None:
    assert (await refused(desk.control.log("digits", 0, None, ""))).code == "not-run-yet"
    desk.write_log("digits.1.7", "one\n")
    desk.write_log("digits.10.90", "ten\n")
    desk.write_log("digits.2.80", "two\n")
    desk.write_log(desk.run("steersman.gateway"), "listening\n")
    newest = await desk.control.log("digits", 0, None, "")
    assert (newest.run, newest.text) == ("digits.10.90", "ten\n")
    one = await desk.control.log("digits.1", 0, None, "")
    assert (one.run, one.text) == ("digits.1.7", "one\n")
    assert (await desk.control.log("digits", 0, "digits.2.80", "")).text == "two\n"
    for name in ("gateway", "steersman.gateway"):
        assert (await desk.control.log(name, 0, None, "")).text == "listening\n"
    assert (await refused(desk.control.log("digits", 0, "digits.2.99", ""))).code == "unknown-run"
    for name, run in (("train", "digits.1.7"), ("digits.2", "digits.1.7"), ("digits", "digits-x.1.7")):
        with pytest.raises(ConflictError, match="is not one of"):
            await desk.control.log(name, 0, run, "")
    for name in ("../x", "a.b", "digits.", "digits.1.2", "Digits", "a" * 64, ""):
        assert (await refused(desk.control.log(name, 0, None, ""))).code == "bad-name"
    for run in ("../../token", "digits.1/../x", "digits"):
        with pytest.raises(ConflictError):
            await desk.control.log("digits", 0, run, "")


@at_desk
async def test_a_service_and_its_replicas_are_looked_at_by_name(desk: Desk) -> None:
    found = await desk.control.service("digits")
    assert [item.name for item in found.replicas] == ["digits.1"]
    assert desk.control.workload("digits.1").row.service == "digits"
    assert desk.control.workload("gateway").row.name == "steersman.gateway"
    with pytest.raises(ConflictError) as error:
        desk.control.workload("digits")
    assert error.value.code == "is-service"
    with pytest.raises(ConflictError) as error:
        await desk.control.service("train")
    assert error.value.code == "unknown-service"
    for name in ("digits", "digits.1", "gateway", "train"):
        explained = await desk.control.explain(name)
        assert explained.why
        assert explained.moments
    with pytest.raises(ConflictError, match="no workload called 'digit'") as error:
        desk.control.workload("digit")
    assert error.value.hint == "did you mean 'digits'?"
    status = await desk.control.status()
    assert ([row.name for row in status.workloads], status.owned) == (["train"], 2)
    whole = await desk.control.status(owned=True)
    assert len(whole.workloads) == 3


@at_desk
async def test_keys(desk: Desk) -> None:
    made = await desk.ask(desk.control.create_key(KeyRequest(name="app", services=("digits",))))
    assert made.secret.startswith("sk-st-")
    assert [key.name for key in desk.control.keys().keys] == ["app"]
    bodies = b"".join(record.body for record in desk.rig.journal.read())
    assert made.secret.encode() not in bodies
    assert made.key.digest_start.encode() in bodies
    await desk.ask(desk.control.revoke_key("app"))
    assert desk.control.keys().keys == ()
    assert (await refused(desk.control.revoke_key("app"))).code == "unknown-key"


@at_desk
async def test_only_what_does_not_answer_is_lost_by_a_persons_word(desk: Desk) -> None:
    assert (await refused(desk.control.lost("nowhere"))).code == "unknown-node"
    snapshot = desk.rig.engine.snapshot
    ((name, _),) = snapshot.nodes.sorted_items()
    assert (await refused(desk.control.lost(name))).code == "node-answers"
    run = desk.run("train")
    await desk.rig.record(NodeHealth(node=NodeId(name), health="unknown"))
    answer = await desk.ask(desk.control.lost(name))
    assert answer.names == (name,)
    await desk.rig.until(lambda: desk.rig.engine.snapshot.workloads["train"].run != run)
    again = await desk.ask(desk.control.lost(name))
    assert again.names == ()
