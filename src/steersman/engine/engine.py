"""The loop: observe, fold, decide, validate, record the intent, act. One cycle at a time, at its own pace.

Theory of operation. Everything that happens comes in through the inbox as events. A cycle runs when there
are any, or when the last plan asked to be woken; an idle home does nothing. Sensors run beside the loop: each
waits for a doorbell, looks, submits what the journal lacks, and lets the sweep compare record and world. They
begin before the first cycle, so that nothing is decided on a blind view. The journal is written off the event
loop, and by nobody else.

Boundaries have names (`parts.reach`): a process killed at any of them restarts into the same state.
"""

import asyncio
import gc
import time
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256

import msgspec

from steersman.decide.cycle import Memo, decide
from steersman.engine.act import Actor
from steersman.engine.inbox import Inbox, Submission, answer_all, refuse_all
from steersman.engine.orders import after_decisions, sweep
from steersman.engine.parts import Parts
from steersman.engine.preview import preview
from steersman.engine.publish import gateway_config
from steersman.engine.restore import replay, restore
from steersman.engine.stats import EngineStats, Tally
from steersman.engine.supervise import supervise
from steersman.engine.validate import still_valid
from steersman.model.decisions import Decision, Plan
from steersman.model.errors import ConflictError, SteersmanError
from steersman.model.events import (
    ControlPlaneStarted,
    Decided,
    Event,
    HomeCreated,
    Observed,
    PolicySet,
    Signal,
)
from steersman.model.ids import RunId
from steersman.model.policy import Policy
from steersman.model.snapshot import Snapshot
from steersman.ports.clock import Clock
from steersman.ports.driver import RankReport
from steersman.ports.gateway import GatewayConfig
from steersman.ports.sensor import Sensor
from steersman.state.fold import fold
from steersman.state.image import encode_image

LOOK_MS = 2_000
"""How long a sensor waits for its doorbell before it looks anyway."""
RETRY_MS = 1_000
"""How long to wait after the journal could not be written."""
IMAGE_EVENTS = 20_000
"""A state image is saved each time so many events were added, and at a clean end."""
PROGRESS_RUNS_MAX = 10_000
"""Of how many runs the last metrics are kept in memory."""

FAILED = "the control plane failed while recording this; whether it was recorded is told by the journal only"
ENDED = "the control plane has ended"


class Engine:
    """One home's control plane, without its API. `start`, then `run` until `close`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._snapshot = Snapshot()
        self._inbox = Inbox()
        self._memo = Memo()
        self._actor = Actor(parts, lambda: self._snapshot, self.submit)
        self._tally = Tally()
        self._memo = Memo()
        self._wake_at_ms: int | None = None
        self._imaged_at = 0
        self._ahead_ms = 0
        self._signals: dict[tuple[str, str], Signal] = {}
        self._published: GatewayConfig | None = None
        self._progress: dict[RunId, Mapping[str, float]] = {}
        self._folded = asyncio.Event()
        self._turn = asyncio.Lock()
        self._ending = False
        self._closing = asyncio.Event()
        self._stopped = asyncio.Event()

    @property
    def snapshot(self) -> Snapshot:
        """The state after the last fold."""
        return self._snapshot

    def progress(self, run: RunId) -> Mapping[str, float]:
        """The last metrics that rank 0 of a run reported; empty when there are none."""
        return self._progress.get(run, {})

    def stats(self) -> EngineStats:
        """Figures about the loop itself."""
        return self._tally.stats(len(self._inbox), self._snapshot.position)

    async def submit(self, events: Sequence[Event]) -> int:
        """Record events; returns the position of the last once all are durable (and soon folded).

        Raises JournalWriteError when they could not be stored, ConflictError when the queue is full; nothing
        of them is recorded then.
        """
        return await self._inbox.submit(events)

    async def changed(self, timeout_ms: int) -> None:
        """Return after the next fold, after the timeout, or when the end is near."""
        if self._ending:
            return
        folded = self._folded
        waiting = asyncio.create_task(folded.wait())
        try:
            await asyncio.wait({waiting}, timeout=timeout_ms / 1000)
        finally:
            waiting.cancel()

    def let_go(self) -> None:
        """The end is near: nobody shall wait for a change any more."""
        self._ending = True
        self._folded.set()

    def preview(self, events: Sequence[Event]) -> tuple[Snapshot, Plan]:
        """What would be decided if these events came now; see `preview`."""
        return preview(self._snapshot, events, self._now_ms())

    async def start(self) -> None:
        """Read the journal, take the home (a new epoch fences all earlier ones), and look at the world."""
        parts = self._parts
        self._snapshot = await asyncio.to_thread(restore, parts.journal, parts.build)
        self._imaged_at = self._snapshot.position
        self._ahead_ms = max(self._snapshot.now_ms - parts.clock.now_ms(), 0)
        opening: list[Event] = []
        if self._snapshot.position == 0:
            opening += [HomeCreated(home_id=parts.new_home_id()), PolicySet(policy=Policy())]
        opening.append(
            ControlPlaneStarted(
                epoch=self._snapshot.epoch + 1,
                build=parts.build,
                boot_id=parts.boot_id,
                libraries=parts.libraries,
            )
        )
        opening.append(Observed(now_ms=self._now_ms(), policy_digest=_digest(self._snapshot.policy)))
        await self._record(opening)
        for sensor in parts.sensors:
            await self._record((await sensor.observe(self._snapshot)).events)
        await self._publish()  # an earlier life may have died between its word and its deed
        gc.freeze()

    async def run(self) -> None:
        """Run the loop, the actor and the sensors until `close`. Raises the error it could not get over."""
        named = {"loop": self._loop, "actor": self._actor.run}
        named |= {sensor.name: partial(self._watch, sensor) for sensor in self._parts.sensors}
        tasks = [
            asyncio.create_task(supervise(name, task, self._parts.clock, self._tally.failed))
            for name, task in named.items()
        ]
        tasks.append(asyncio.create_task(self._closed()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            self._inbox.close(ConflictError(ENDED, hint="start it again", code="ended"))
            self._stopped.set()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def close(self) -> None:
        """End the loop after the current cycle and keep an image. Running work is left alone."""
        self._closing.set()
        self._inbox.nudge()
        await self._stopped.wait()
        await self._save_image()

    async def _loop(self) -> None:
        # After a failed cycle the truth is what the journal holds, not what was being made of it.
        self._snapshot = await asyncio.to_thread(replay, self._parts.journal, self._snapshot)
        self._wake_at_ms = self._now_ms()
        while not self._closing.is_set():
            await self._wait()  # 1. until there is news, or the time that the last plan named
            async with self._turn:
                submissions = self._inbox.take()  # 2. everything that waits, up to a batch
                try:
                    await self._cycle(submissions)
                finally:
                    refuse_all(submissions, SteersmanError(FAILED))

    async def _closed(self) -> None:
        """Return when the end is asked for and no cycle is under way, though the loop itself may pause."""
        await self._closing.wait()
        async with self._turn:
            return

    async def _cycle(self, submissions: list[Submission]) -> None:
        began = time.process_time()
        self._wake_at_ms = None
        now_ms = self._now_ms()
        signals = tuple(self._signals[key] for key in sorted(self._signals))
        events = [event for submission in submissions for event in submission.events]
        set_here = [event.policy for event in events if isinstance(event, PolicySet)]
        digest = _digest([self._snapshot.policy, *set_here][-1])  # of the one that this cycle obeys
        observed = Observed(now_ms=now_ms, signals=signals, policy_digest=digest, news=len(events))
        self._parts.reach("before-record")
        try:
            await self._record([observed, *events])  # 3. written down, then 4. folded
        except SteersmanError as error:
            refuse_all(submissions, error)
            self._pause(error)
            return
        self._parts.reach("after-record")
        for signal in signals:  # one that moved again meanwhile stays for the next cycle
            if self._signals[signal.name, signal.subject] is signal:
                del self._signals[signal.name, signal.subject]
        answer_all(submissions, self._snapshot.position - len(events) + 1)
        plan = decide(self._snapshot, self._memo)  # 5. decided, on nothing but the snapshot
        decisions = await self._intend(plan)
        published = await self._publish()
        if decisions is not None and published:
            self._tally.cycle(time.process_time() - began, decisions)
        self._folded.set()
        self._folded = asyncio.Event()
        if self._snapshot.position - self._imaged_at >= IMAGE_EVENTS:
            await self._save_image()

    async def _intend(self, plan: Plan) -> tuple[Decision, ...] | None:
        """6. validate what was decided, 7. record the intent, 8. act on it. None: it was not recorded."""
        self._wake_at_ms = plan.wake_at_ms
        if not (plan.decisions or plan.packing):
            return ()
        late = self._inbox.take()
        try:
            decisions = await self._record_intent(plan, late)
        except SteersmanError as error:
            refuse_all(late, error)
            self._pause(error)
            return None
        finally:
            refuse_all(late, SteersmanError(FAILED))
        await self._publish()  # a gateway lets go of a replica before that is told to end
        self._actor.hand_over(after_decisions(self._snapshot, decisions))
        self._wake_at_ms = self._snapshot.now_ms  # what was decided, or came in late, may call for more
        return decisions

    async def _record_intent(self, plan: Plan, late: Sequence[Submission]) -> tuple[Decision, ...]:
        events = [event for submission in late for event in submission.events]
        decisions = self._validated(plan.decisions, events)
        intent: list[Event] = []
        if decisions or plan.packing:
            at = self._snapshot.observed_at
            intent = [Decided(observed_at=at, decisions=decisions, packing=plan.packing)]
        self._parts.reach("before-intent")
        await self._record([*events, *intent])
        self._parts.reach("after-intent")
        answer_all(late, self._snapshot.position - len(events) + 1 - len(intent))
        return decisions

    def _validated(self, decisions: tuple[Decision, ...], late: Sequence[Event]) -> tuple[Decision, ...]:
        """The decisions that still hold now that these events have come in as well."""
        if not late:
            return decisions
        fresh = fold(self._snapshot, enumerate(late, start=self._snapshot.position + 1))
        return still_valid(fresh, decisions)

    async def _record(self, events: Sequence[Event]) -> None:
        """Store events durably, then fold them. Nothing is folded that is not stored."""
        if not events:
            return
        now_ms = self._now_ms()
        last = await asyncio.to_thread(self._parts.journal.append, events, now_ms)
        first = last - len(events) + 1
        gc.disable()
        try:
            self._snapshot = fold(self._snapshot, enumerate(events, start=first))
        finally:
            gc.enable()

    async def _wait(self) -> None:
        waiting = {asyncio.create_task(self._inbox.wait())}
        if self._wake_at_ms is not None:
            left_ms = max(self._wake_at_ms - self._now_ms(), 0)
            waiting.add(asyncio.create_task(_sleep(self._parts.clock, left_ms)))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    def _pause(self, error: SteersmanError) -> None:
        self._tally.failed("journal", error)
        self._wake_at_ms = self._now_ms() + RETRY_MS

    async def _watch(self, sensor: Sensor) -> None:
        while True:
            await self._look(sensor)
            await sensor.wait_changed(LOOK_MS)

    async def _look(self, sensor: Sensor) -> None:
        """One look of one sensor: its news recorded, then record and world compared."""
        before, busy = self._snapshot, self._actor.busy()
        observation = await sensor.observe(before)
        self._note_signals(observation.signals)
        busy |= self._actor.busy()  # an order may be done by the time the news are recorded
        if observation.events:
            await self.submit(observation.events)
        if observation.reports is None:
            return
        self._note_progress(observation.reports)
        found = sweep(
            before,
            self._snapshot,
            observation.driver,
            observation.reports,
            busy | self._actor.busy(),
        )
        if found.events:
            await self.submit(found.events)
        async with self._turn:  # the gateway lets go of a replica before that is told to end, here too
            self._actor.hand_over(found.orders)

    def _note_signals(self, signals: Sequence[Signal]) -> None:
        self._signals |= {(signal.name, signal.subject): signal for signal in signals}
        if signals:
            self._inbox.nudge()

    async def _publish(self) -> bool:
        """Hand the gateway its configuration when it is another than it has. A failure is tried again.

        Whether it has it now.
        """
        config = gateway_config(self._snapshot, self._parts.gateways.target)
        if config is None or _same(config, self._published):
            return True
        try:
            await asyncio.to_thread(self._parts.gateways.publish, config)
        except SteersmanError as error:
            self._tally.failed("gateway", error)
            retry_ms = self._now_ms() + RETRY_MS
            self._wake_at_ms = retry_ms if self._wake_at_ms is None else min(self._wake_at_ms, retry_ms)
            return False
        self._published = config
        return True

    def _note_progress(self, reports: Sequence[RankReport]) -> None:
        for report in reports:
            if report.key.rank == 0 and report.progress:
                self._progress.pop(report.key.run, None)
                self._progress[report.key.run] = dict(report.progress)
        while len(self._progress) > PROGRESS_RUNS_MAX:
            del self._progress[next(iter(self._progress))]

    def _now_ms(self) -> int:
        """Time as the journal tells it: where an earlier clock was ahead, it goes on from there.

        Otherwise a clock that was set back would stop every back-off and deadline until it has caught up.
        """
        return self._parts.clock.now_ms() + self._ahead_ms

    async def _save_image(self) -> None:
        snapshot, parts = self._snapshot, self._parts

        def save() -> None:
            parts.journal.save_image(snapshot.position, parts.build, encode_image(snapshot))

        self._imaged_at = snapshot.position
        try:
            await asyncio.to_thread(save)
        except SteersmanError as error:  # an image is a cache: it is told, and nothing else changes
            self._tally.failed("image", error)


def _digest(policy: Policy) -> str:
    return "sha256:" + sha256(msgspec.json.encode(policy)).hexdigest()


def _same(config: GatewayConfig, other: GatewayConfig | None) -> bool:
    """Whether two say the same, at whatever position."""
    return other is not None and config == msgspec.structs.replace(other, position=config.position)


async def _sleep(clock: Clock, duration_ms: int) -> None:
    await clock.sleep_ms(duration_ms)
