"""What replicas that failed left behind: their log's last line, and how they ended when nobody else knows."""

from pathlib import Path

from tests.unit.app.test_serving import up
from tests.unit.explain.served import Served, service

from steersman.app import serving
from steersman.app.failures import Failures
from steersman.dataplane.shim.logs import LogWriter
from steersman.explain.services import explain_service
from steersman.journal.memory import MemoryJournal
from steersman.model.events import RankExited, RankStarted
from steersman.ports import run_dir
from steersman.sensors.figures import Figures

LINE = "replica: the model cannot be served: no such operator; hint: export it again"


def write_log(home: Path, run: str, text: str) -> None:
    folder = home / run_dir.RUNS / run / "0" / run_dir.LOGS
    folder.mkdir(parents=True)
    LogWriter(str(folder / run_dir.LOG_FILE)).feed(text.encode())


def journal_of(home: Served) -> MemoryJournal:
    made = MemoryJournal()
    made.append([item.event for item in home.log], 1_000)
    return made


def killed(home: Served, name: str) -> str:
    """The replica's run ends for want of memory; its name."""
    run = home.run(name)
    begun = [] if run.started_ms else [RankStarted(run=run.id, rank=0, pid=7, at_ms=home.now_ms)]
    end = RankExited(run=run.id, rank=0, at_ms=home.now_ms, signal=9, cause="memory")
    home.cycle(*begun, end)
    home.settle()
    return run.id


def test_nothing_is_read_while_all_is_well(tmp_path: Path) -> None:
    home = up()
    assert Failures(tmp_path, journal_of(home)).look(home.snapshot) == {}


def test_the_reason_of_a_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    home = up()
    home.serve(service(envs=(("A", "1"),)))
    name = home.service().replicas[-1].name
    write_log(tmp_path, home.run(name).id, f"replica: loading\n{LINE}\n")
    home.crash(name, exit_code=78)
    heard = Failures(tmp_path, journal_of(home)).look(home.snapshot)
    assert heard[name].line == LINE
    found = serving.row(home.snapshot, home.service(), serving.Live(Figures(), None, True, heard))
    assert (found.failed, found.failing, found.said) == (2, name, LINE)
    records = [(item.position, item.at_ms, item.event) for item in home.log]
    facts = explain_service(home.snapshot, "digits", records, heard=heard).facts
    assert f"{name} said last: {LINE}" in facts


def test_an_end_for_want_of_memory_is_told_although_the_replica_is_forgotten(tmp_path: Path) -> None:
    home = up()
    home.serve(service(envs=(("A", "1"),)))
    name = home.service().replicas[-1].name
    for _ in range(3):
        killed(home, name)
        home.cycle(after_ms=400_000)
        home.settle()
    home.drained()
    assert name not in home.snapshot.workloads
    failures = Failures(tmp_path, journal_of(home))
    heard = failures.look(home.snapshot)
    assert heard[name].cause == "memory"
    assert failures.look(home.snapshot) == heard  # known by now
    found = serving.row(home.snapshot, home.service(), serving.Live(Figures(), None, True, heard))
    assert f"{name} out of its memory: ended by signal 9 before it was ready" in found.reason
    assert found.fix == "raise resources.memory, and declare it again"
    unknown = serving.row(home.snapshot, home.service(), serving.nothing_live())
    assert "out of its memory" not in unknown.reason
    assert "steer logs" in unknown.fix


def test_a_first_revision_that_lacks_memory_is_told_from_the_state(tmp_path: Path) -> None:
    home = Served()
    home.serve(service())
    home.bring_up("nobody")
    run = killed(home, "digits.1")
    write_log(tmp_path, run, "loading\n")
    heard = Failures(tmp_path, journal_of(home)).look(home.snapshot)
    found = serving.row(home.snapshot, home.service(), serving.Live(Figures(), None, True, heard))
    assert (found.phase, found.failing, found.said) == ("failing", "digits.1", "loading")
    assert "out of its memory" in found.reason
    assert found.fix == "raise resources.memory, and declare it again"
    for _ in range(2):
        home.cycle(after_ms=400_000)
        home.settle()
        killed(home, "digits.1")
    given_up = serving.row(home.snapshot, home.service(), serving.nothing_live())
    assert given_up.code == "replica-crashed"
    assert "out of its memory: ended by signal 9 before it was ready, 3 times in a row" in given_up.reason
    assert given_up.fix == "raise resources.memory, and declare it again"
