"""One cluster's bridge process as the driver holds it: asked by lines, and started again when it ends.

A question that the bridge cannot answer because it has ended is refused; nothing waits for a cluster for
ever.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steersman.model.errors import DriverError, NotTakenError

LINE_BYTES_MAX = 64 * 1024 * 1024
CONNECT_SECONDS_MAX = 90.0
ASK_SECONDS_MAX = 360.0
FINISH_SECONDS_MAX = 6.0
AGAIN_SECONDS = (1.0, 2.0, 5.0, 5.0, 5.0, 10.0, 10.0, 10.0, 30.0)
"""How long after it ended it is started again, the last for all further tries."""
LAST_WORDS_BYTES = 2_000
PASSING = frozenset(
    {
        "cluster-busy",
        "cluster-error",
        "cluster-open",
        "cluster-token",
        "cluster-unreachable",
        "cluster-version",
        "host-gone",
        "no-answer",
        "no-host",
        "node-gone",
    }
)
"""Codes of refusals that are the cluster's doing, whatever was asked of it."""


class Bridge:
    """`argv` starts it; `settings` is what it connects with; `changed` is called when there may be news."""

    def __init__(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        settings: Mapping[str, Any],
        changed: Callable[[], None],
    ) -> None:
        self._argv, self._environ, self._settings, self._changed = argv, environ, settings, changed
        self._process: asyncio.subprocess.Process | None = None
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._connected = False
        self.problem: DriverError | None = NotTakenError(
            f"the cluster {settings['cluster']['name']} is being connected to",
            hint="wait a moment",
            code="connecting",
        )
        self._life = asyncio.ensure_future(self._live())

    @property
    def pid(self) -> int | None:
        """The process, for tests and chaos."""
        return None if self._process is None else self._process.pid

    async def ask(self, verb: str, **arguments: Any) -> Any:
        """What the bridge answers. Raises DriverError."""
        if not self._connected:
            assert self.problem is not None, "there is a reason while it is not connected"
            raise self.problem
        return await self._ask(verb, ASK_SECONDS_MAX, arguments)

    async def _ask(self, verb: str, seconds: float, arguments: Mapping[str, Any]) -> Any:
        process = self._process
        if process is None or process.stdin is None:
            raise self._gone()
        self._number += 1
        number, answer = self._number, asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            process.stdin.write(json.dumps({"id": number, "do": verb, **arguments}).encode() + b"\n")
            await process.stdin.drain()
            said = await asyncio.wait_for(answer, seconds)
        except (OSError, TimeoutError) as error:
            raise self._gone() from error
        finally:
            self._asked.pop(number, None)
        if "refused" in said:
            kind = NotTakenError if said["code"] in PASSING else DriverError
            raise kind(said["refused"], hint=said["hint"], code=said["code"])
        return said["value"]

    def _gone(self) -> DriverError:
        name = self._settings["cluster"]["name"]
        return NotTakenError(
            f"the bridge to the cluster {name} does not answer", hint="it is started again", code="no-bridge"
        )

    async def _live(self) -> None:
        """Keep a process up and connected until cancelled."""
        tries = 0
        while True:
            try:
                await self._once()
                tries = 0
            except DriverError as error:
                self.problem = error
            except OSError as error:
                self.problem = NotTakenError(
                    f"the bridge {self._argv[0]} cannot be started: {error.strerror}",
                    hint="install Steersman's extra `ray`, or name an interpreter that has Ray as `python`",
                    code="no-bridge",
                )
            self._changed()
            await asyncio.sleep(AGAIN_SECONDS[min(tries, len(AGAIN_SECONDS) - 1)])
            tries += 1

    async def _once(self) -> None:
        """One process from its start to its end. Raises DriverError, OSError when it did not come up."""
        process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environ,
            limit=LINE_BYTES_MAX,
            start_new_session=True,
        )
        self._process = process
        words: list[bytes] = []
        reading = asyncio.ensure_future(self._read(process))
        hearing = asyncio.ensure_future(_keep_last(process, words))
        try:
            await self._connect(reading, words)
            self._connected, self.problem = True, None
            self._changed()
            await reading
            self.problem = self._gone()
        finally:
            self._connected = False
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(self._gone())
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            reading.cancel()
            hearing.cancel()
            await process.wait()

    async def _connect(self, reading: "asyncio.Future[None]", words: list[bytes]) -> None:
        """Raises DriverError when it refuses, ends first, or takes too long."""
        asking = asyncio.ensure_future(self._ask("connect", CONNECT_SECONDS_MAX, self._settings))
        await asyncio.wait({asking, reading}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            asking.result()
            return
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        last = b"".join(words)[-LAST_WORDS_BYTES:].decode("utf-8", "replace").strip().splitlines()
        name = self._settings["cluster"]["name"]
        missing = any("No module named" in line or "No such file" in line for line in last)
        raise NotTakenError(
            f"the bridge to the cluster {name} ended: {last[-1] if last else 'it did not say why'}",
            hint="install Steersman with the extra `ray`, or name an interpreter that has Ray as `python`"
            if missing
            else "is the cluster up, and of this Ray's version?",
            code="no-bridge" if missing else "cluster-unreachable",
        )

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Answers and news, until it ends."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            said = json.loads(line)
            if said.get("changed"):
                self._changed()
                continue
            answer = self._asked.get(said["id"])
            if answer is not None and not answer.done():
                answer.set_result(said)

    async def close(self) -> None:
        """End the process; what runs on the cluster lives on, and what has ended is let go of."""
        if self._connected:
            with contextlib.suppress(DriverError):
                await self._ask("finish", FINISH_SECONDS_MAX, {})
        self._life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._life


async def _keep_last(process: asyncio.subprocess.Process, words: list[bytes]) -> None:
    """The last words it says on its standard error: why it ended may be there."""
    assert process.stderr is not None
    while data := await process.stderr.read(LAST_WORDS_BYTES):
        words.append(data)
        del words[:-4]


def bridge_environ(inherited: Mapping[str, str], token: str) -> dict[str, str]:
    """What a bridge inherits: no Ray setting of this machine but those that are asked for, and the token."""
    kept = {name: value for name, value in inherited.items() if not name.startswith("STEERSMAN_")}
    kept |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "PYTHONUNBUFFERED": "1"}
    kept |= {"RAY_CLIENT_RECONNECT_GRACE_PERIOD": "10"}  # seconds; then another bridge is better
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "PYTHONPATH"):
        kept.pop(name, None)
    if token:
        kept |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    kept.setdefault("HOME", os.sep)
    return kept
