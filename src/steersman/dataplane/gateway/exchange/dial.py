"""Reaching one replica, for as long as it is configured.

Theory: being able to connect is readiness, so a gateway just tries, often: a look at the file's name costs
microseconds while there is none. Looks are DIAL_S apart while the target is new and DIAL_SLOW_S later. After
a fault (a wrong frame, a hang, a stranger behind the name) the pause doubles with every fault in a row, so
that a broken replica does not eat the second tries of calls. A socket's path may hold 108 bytes only, so the
connection goes through a descriptor of its folder.

A replica on another machine is dialled over TCP, and TLS must show that it is the run's own (`secure`). That
nobody listens is no fault; that something else listens, or nothing is said, is one.
"""

import asyncio
import os
import socket
import ssl
from pathlib import Path

from steersman.dataplane.gateway.exchange.link import Link, Owner
from steersman.dataplane.gateway.exchange.secure import Secure, vanished
from steersman.ports import peers
from steersman.ports.gateway import ReplicaTarget
from steersman.ports.replica_wire import Frame

DIAL_S = 0.02
DIAL_SLOW_S = 0.1
DIAL_FAST_TRIES = 100
FAULT_S_MAX = 30.0
HELLO_S_MAX = 5.0
"""A replica that says nothing for so long after it was connected is cut off."""

CONNECT_S_MAX = 2.0
"""A machine that does not answer at all is tried again."""
LOOK_S = 0.5
"""How often a link over TCP with a batch under way is looked at for a machine that is gone."""


class Target:
    """One configured replica, connected or not."""

    __slots__ = (
        "_look",
        "_next",
        "_owner",
        "_secure",
        "_socket",
        "_task",
        "_tries",
        "faults",
        "link",
        "problem",
        "retired",
        "revision",
        "where",
    )

    def __init__(self, owner: Owner, revision: int, where: ReplicaTarget, secure: Secure) -> None:
        self._owner, self._secure = owner, secure
        self.revision, self.where = revision, where
        self.link: Link | None = None
        self.retired = False  # taken out of the configuration
        self.faults = 0
        self.problem = ""  # why the last connection was cut from this side
        self._task: asyncio.Task[None] | None = None
        self._tries = 0
        self._next = 0.0
        self._look = 0.0
        self._socket: socket.socket | None = None  # of a link over TCP

    def tick(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        """Connect when it is time; cut off a replica that is silent after connecting, or hangs."""
        link = self.link
        if link is None:
            if not self.retired and now >= self._next:
                self._dial(loop, now)
        elif link.pool is None:
            if now - link.opened > HELLO_S_MAX:
                link.close(f"it said nothing for {HELLO_S_MAX} s")
        elif any(now - batch.heard > batch.overdue_s for batch in link.batches.values()):
            link.close("a batch hangs")
        elif link.batches and self._socket is not None and now >= self._look:
            self._look = now + LOOK_S
            if vanished(self._socket):
                link.close("its machine does not answer")

    def retire(self) -> None:
        """It has left the configuration: no new batch; the connection closes once nothing is under way."""
        self.retired = True
        link = self.link
        if link is None:
            return
        link.retired = True
        if link.pool is not None:
            link.pool.leave(link)
        if not link.batches:
            link.close()

    def hello(self, link: Link, frame: Frame) -> str:
        """See `link.Owner`."""
        return self._owner.hello(link, frame)

    def drain(self, link: Link) -> None:
        """See `link.Owner`."""
        self._owner.drain(link)

    def lost(self, link: Link) -> None:
        """See `link.Owner`. It is tried again, later if the fault was its own."""
        self.link = None
        self._socket = None
        self._tries = 0
        self._next = 0.0
        if self.where.address and link.pool is None and link.connected:
            link.problem = link.problem or "it hung up before it said anything"
        if link.problem:
            self.faults += 1
            self.problem = link.problem
            self._next = link.loop.time() + min(DIAL_SLOW_S * 2**self.faults, FAULT_S_MAX)
        elif link.served:
            self.faults, self.problem = 0, ""
        self._owner.lost(link)

    def _dial(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self._tries += 1
        self._next = now + (DIAL_S if self._tries < DIAL_FAST_TRIES else DIAL_SLOW_S)
        if self.where.address:
            self._dial_far(loop)
            return
        connection = _connect(self.where.socket)
        if connection is not None:
            self.link = link = Link(self, self.where.run, self.revision, loop)
            self._task = loop.create_task(self._attach(loop, connection, link))

    def _dial_far(self, loop: asyncio.AbstractEventLoop) -> None:
        place, context = peers.split_address(self.where.address), self._secure.context()
        if place is None or context is None:
            self.problem = "this gateway has no certificate" if place else "its address is none"
            return
        self.link = link = Link(self, self.where.run, self.revision, loop)
        self._task = loop.create_task(self._attach_far(loop, place, context, link))

    async def closed(self) -> None:
        """Return once nothing is being connected any more."""
        if self._task is None:
            return
        if self.where.address:
            self._task.cancel()  # a listener that says nothing must not hold up the end
        await asyncio.gather(self._task, return_exceptions=True)

    def stranger(self, transport: asyncio.BaseTransport) -> str:
        """See `link.Dialler`. A Unix socket is known by its folder, which is the run's."""
        if not self.where.address:
            return ""
        return self._secure.stranger(transport.get_extra_info("peercert"), self.where.run)

    async def _attach(self, loop: asyncio.AbstractEventLoop, connection: socket.socket, link: Link) -> None:
        try:
            await loop.create_unix_connection(lambda: link, sock=connection)
        except OSError:
            connection.close()
            self.lost(link)

    async def _attach_far(
        self, loop: asyncio.AbstractEventLoop, place: tuple[str, int], context: ssl.SSLContext, link: Link
    ) -> None:
        family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                peers.prepare(connection)
                await loop.sock_connect(connection, place)
            link.opened = loop.time()
            link.connected = True
            self._socket = connection
            await loop.create_connection(
                lambda: link,
                sock=connection,
                ssl=context,
                server_hostname="",
                ssl_handshake_timeout=HELLO_S_MAX,
            )
        except OSError as error:  # ssl's errors and those of late answers are among them
            connection.close()
            if link.connected:
                link.problem = link.problem or f"no TLS with it: {error}"
            self.lost(link)
        except asyncio.CancelledError:
            connection.close()
            self.lost(link)
            raise


def _connect(path: str) -> socket.socket | None:
    """A connected socket, or None when nobody listens there now."""
    try:
        Path(path).stat()
        folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{Path(path).name}")
    except OSError:
        connection.close()
        return None
    finally:
        os.close(folder)
    return connection
