"""A file left behind by a dead server leads nobody anywhere."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from steersman.app.machine import boot_id, local_fleet, process_start
from steersman.app.server_file import (
    ServerFile,
    describe_server,
    remove_server,
    running_server,
    write_server,
)


def test_this_process_is_found(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    assert running_server(path) is None
    here = describe_server(8470, 3)
    write_server(path, here)
    assert running_server(path) == here
    assert (here.pid, here.port, here.epoch) == (os.getpid(), 8470, 3)


def test_a_dead_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        started = process_start(child.pid)
        assert started is not None
        server = ServerFile(pid=child.pid, pid_start=started, boot_id=boot_id(), port=1, epoch=1)
        write_server(path, server)
        assert running_server(path) == server
    finally:
        child.kill()
        child.communicate()
    assert running_server(path) is None


def test_a_pid_used_again_or_of_another_boot_is_not(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    here = describe_server(8470, 1)
    for other in (
        msgspec.structs.replace(here, pid_start=here.pid_start + 1),
        msgspec.structs.replace(here, boot_id="another"),
        msgspec.structs.replace(here, pid=2**22 + 1),
    ):
        write_server(path, other)
        assert running_server(path) is None


def test_a_damaged_file_is_no_server(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    for data in (b"", b"{", b"[]", b'{"pid": "x"}'):
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        path.chmod(0o600)
        assert running_server(path) is None


def test_only_its_own_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    mine, other = describe_server(1, 1), describe_server(2, 2)
    write_server(path, other)
    remove_server(path, mine)
    assert path.exists()
    remove_server(path, other)
    assert not path.exists()


def test_a_process_whose_name_is_odd_is_read_right(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 ("
    odd.symlink_to(sys.executable)
    child = subprocess.Popen([str(odd), "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        mine, its = process_start(os.getpid()), process_start(child.pid)
        assert mine is not None
        assert its is not None
        assert its >= mine
    finally:
        child.kill()
        child.communicate()


def test_this_machine_as_a_fleet() -> None:
    (node,) = local_fleet().nodes
    assert node.cpu_milli == 1000 * len(os.sched_getaffinity(0))
    assert 0 < node.memory_bytes < 2**50
