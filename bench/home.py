"""A home as chaos knows it from the outside: its client, its programs' own account, and its processes.

Every program appends ``start <run>/<rank> <nonce>`` to the home's ledger when it begins and ``end … <code>``
just before it leaves, with O_APPEND. The ledger is therefore the programs' own account, which the journal's
is held against. Living processes are found by their environment or command line naming the home's folder.
"""

import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from steersman.app.client import Client, path
from steersman.app.server_file import running_server
from steersman.app.wire import Document, DownRequest, NamesView, StatusView, Submission, UpView
from steersman.journal import SqliteJournal
from steersman.model.codec import decode_event
from steersman.model.errors import SteersmanError
from steersman.model.events import Event
from steersman.model.ids import RunId
from steersman.ports import run_dir
from steersman.ports.driver import RankKey
from steersman.sim.checkers import Life

ROOT = Path(__file__).resolve().parent.parent


class Home:
    """A folder with a home and a ledger in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="steersman-chaos-"))
        self.home = self.folder / "home"
        self.ledger = self.folder / "ledger"
        self.ledger.touch()

    # The client.

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """A connection to the plane. Raises SteersmanError when none serves."""
        running = running_server(self.home / "server.json")
        if running is None:
            raise SteersmanError("no plane serves")
        with Client(self.home, running) as client:
            yield client

    def up(self, *texts: str) -> UpView:
        """Declare. Raises SteersmanError."""
        documents = tuple(
            Document(source=f"{number}.yaml", text=text, folder=str(self.folder))
            for number, text in enumerate(texts)
        )
        with self.client() as client:
            return client.post(path("up"), Submission(documents=documents), UpView)

    def stop(self, name: str) -> None:
        """End a workload's run. Raises SteersmanError."""
        with self.client() as client:
            client.post(path("workloads", name, "stop"), None, NamesView)

    def down(self, name: str) -> None:
        """Remove a workload. Raises SteersmanError."""
        with self.client() as client:
            client.post(path("down"), DownRequest(names=(name,)), NamesView)

    def status(self, *, owned: bool = False) -> StatusView:
        """Everything now, with `owned` also what Steersman runs itself. Raises SteersmanError."""
        with self.client() as client:
            return client.get(path("status"), StatusView, {"all": "true" if owned else None})

    # The accounts.

    def history(self) -> tuple[tuple[tuple[int, Event], ...], list[str]]:
        """The journal, and what is wrong with its chain. Nobody may write it."""
        with contextlib.closing(SqliteJournal.open_reader(self.home)) as journal:
            problems = [f"journal: {problem}" for problem in journal.verify().problems]
            history = tuple(
                (record.position, decode_event(record.type, record.version, record.body))
                for record in journal.read()
            )
        return history, problems

    def lives(self, live: frozenset[str]) -> tuple[Life, ...]:
        """What the programs wrote; `live` are the keys of those that still live."""
        starts: Counter[str] = Counter()
        codes: dict[str, int] = {}
        for line in self.ledger.read_text().splitlines():
            word, key, _nonce, *code = line.split()
            if word == "start":
                starts[key] += 1
            else:
                codes[key] = int(code[0])
        return tuple(
            Life(key=key_of(name), starts=count, live=name in live, exit_code=codes.get(name))
            for name, count in sorted(starts.items())
        )

    def processes(self) -> dict[int, str]:
        """Living processes of this home that are no plane: pid → the rank that its environment names."""
        return dict(_processes(f"{self.folder}/"))

    def remove(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self.folder, ignore_errors=True)


def key_of(name: str) -> RankKey:
    """``<run>/<rank>`` as a key."""
    run, _, rank = name.rpartition("/")
    return RankKey(run=RunId(run), rank=int(rank))


def _processes(folder: str) -> Iterator[tuple[int, str]]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            environ = _environ((process / "environ").read_bytes())
            marked = environ.get(run_dir.ENV_RUN_DIR, "").startswith(folder)
            if marked:
                yield int(process.name), f"{environ[run_dir.ENV_RUN_ID]}/{environ[run_dir.ENV_NODE_RANK]}"
            elif any(word.startswith(folder) and f"/{run_dir.RUNS}/" in word for word in command):
                yield int(process.name), ""


def _environ(data: bytes) -> Mapping[str, str]:
    pairs = (item.partition("=") for item in data.decode(errors="replace").split("\0"))
    return {name: value for name, _, value in pairs}
