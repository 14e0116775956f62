"""Both control-group layouts, on made-up trees; tests/e2e runs the layout that this machine really has."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from steersman.dataplane.shim import cgroup
from steersman.dataplane.shim.cgroup import Group, Limits, Mount, create, mounts

HYBRID_INFO = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
HYBRID_OWN = "8:pids:/a\n4:memory:/a/b\n1:cpu,cpuacct:/\n9:name=systemd:/\n0::/u\n"
LIMITS = Limits(cpu_milli=1500, memory_bytes=1 << 20, pids=10)


def test_a_hybrid_machine_is_read() -> None:
    assert mounts(HYBRID_INFO, HYBRID_OWN) == [
        Mount(1, ("cpu",), "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"),
        Mount(1, ("memory",), "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/a/b"),
        Mount(1, ("pids",), "/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/a"),
        Mount(2, (), "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/u"),
    ]


def test_a_container_that_sees_part_of_a_hierarchy_is_read() -> None:
    info = "35 31 0:32 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    assert mounts(info, "4:memory:/docker/x/y\n")[0].own == "/sys/fs/cgroup/memory/y"
    assert mounts(info, "4:memory:/docker/x\n")[0].own == "/sys/fs/cgroup/memory"


def test_a_machine_without_any_gives_none() -> None:
    assert create(mounts("", ""), "g", LIMITS) is None
    assert create([Mount(1, ("memory",), "/m", "/m")], "g", LIMITS) is None


V1_FILES = {
    "cpu": ("cpu.cfs_period_us", "cpu.cfs_quota_us"),
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    "pids": ("pids.max",),
}
V2_FILES = (
    "cpu.max", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cgroup.procs",
)  # fmt: skip


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    """A make-believe kernel: a group made below one of these prefixes is born with these files."""
    births: dict[str, tuple[str, ...]] = {}
    real_mkdir, real_rmdir = os.mkdir, os.rmdir

    def mkdir(path: str | Path, mode: int = 0o777) -> None:
        real_mkdir(path, mode)
        if Path(path).name == "g":
            near = [prefix for prefix in sorted(births, reverse=True) if str(path).startswith(prefix)]
            for name in births[near[0]]:
                (Path(path) / name).touch()

    def rmdir(path: str | Path) -> None:
        for file in Path(path).iterdir():
            file.unlink()
        real_rmdir(path)

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "rmdir", rmdir)
    return births


def v1(tmp_path: Path, kernel: dict[str, tuple[str, ...]]) -> list[Mount]:
    for controller, files in V1_FILES.items():
        (tmp_path / controller).mkdir()
        kernel[str(tmp_path / controller)] = (*files, "cgroup.procs")
    return [Mount(1, (name,), str(tmp_path / name), str(tmp_path / name)) for name in V1_FILES]


def test_version_1_sets_every_limit(tmp_path: Path, kernel: dict[str, tuple[str, ...]]) -> None:
    found = v1(tmp_path, kernel)
    (tmp_path / "unified").mkdir()
    kernel[str(tmp_path / "unified")] = ("cgroup.procs", "cgroup.kill")
    found.append(Mount(2, (), str(tmp_path / "unified"), str(tmp_path / "unified")))
    group = create(found, "g", LIMITS)
    assert group is not None
    assert group.version == 1
    assert (tmp_path / "cpu/g/cpu.cfs_quota_us").read_text() == "30000"
    assert (tmp_path / "cpu/g/cpu.cfs_period_us").read_text() == "20000"
    assert (tmp_path / "memory/g/memory.limit_in_bytes").read_text() == str(1 << 20)
    assert (tmp_path / "pids/g/pids.max").read_text() == "10"
    group.attach(77)
    assert {Path(folder).parent.name for folder in group.folders} == {"cpu", "memory", "pids", "unified"}
    assert all((Path(folder) / "cgroup.procs").read_text() == "77" for folder in group.folders)
    (tmp_path / "memory/g/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert group.oom_kills() == 3
    assert group.remove()
    assert not (tmp_path / "cpu/g").exists()
    assert group.remove(), "what is gone is removed"


@pytest.mark.parametrize(
    ("cpu_milli", "quota_us", "period_us"),
    [(500, 10_000, 20_000), (50, 1_000, 20_000), (10, 1_000, 100_000), (1, 1_000, 1_000_000)],
)
def test_a_small_share_of_a_core_has_the_kernels_least_quota_in_a_longer_period(
    tmp_path: Path, kernel: dict[str, tuple[str, ...]], cpu_milli: int, quota_us: int, period_us: int
) -> None:
    limits = Limits(cpu_milli=cpu_milli, memory_bytes=LIMITS.memory_bytes, pids=LIMITS.pids)
    assert create(v1(tmp_path, kernel), "g", limits) is not None
    assert (tmp_path / "cpu/g/cpu.cfs_quota_us").read_text() == str(quota_us)
    assert (tmp_path / "cpu/g/cpu.cfs_period_us").read_text() == str(period_us)


def test_version_1_without_one_controller_leaves_nothing(
    tmp_path: Path, kernel: dict[str, tuple[str, ...]]
) -> None:
    found = v1(tmp_path, kernel)
    kernel[str(tmp_path / "pids")] = ()
    assert create(found, "g", LIMITS) is None
    assert not any(tmp_path.glob("*/g"))


def test_version_2_takes_the_nearest_ancestor_that_hands_controllers_down(
    tmp_path: Path, kernel: dict[str, tuple[str, ...]]
) -> None:
    own = tmp_path / "root" / "user" / "shell"
    own.mkdir(parents=True)
    kernel[str(tmp_path / "root")] = V2_FILES
    kernel[str(own)] = ("cgroup.procs",)
    group = create([Mount(2, (), str(tmp_path / "root"), str(own))], "g", LIMITS)
    assert group is not None
    assert group.version == 2
    folder = tmp_path / "root" / "user" / "g"
    assert group.folders == (str(folder),)
    assert (folder / "cpu.max").read_text() == "30000 20000"
    assert (folder / "memory.max").read_text() == str(1 << 20)
    assert (folder / "memory.swap.max").read_text() == "0"
    assert (folder / "memory.oom.group").read_text() == "1"
    assert not (own / "g").exists()


def test_version_2_without_controllers_anywhere_leaves_nothing(
    tmp_path: Path, kernel: dict[str, tuple[str, ...]]
) -> None:
    own = tmp_path / "root" / "user"
    own.mkdir(parents=True)
    kernel[str(tmp_path)] = ("cgroup.procs", "cgroup.kill")
    assert create([Mount(2, (), str(tmp_path / "root"), str(own))], "g", LIMITS) is None
    assert not any(tmp_path.rglob("g"))


def test_version_2_that_refuses_a_limit_leaves_nothing(
    tmp_path: Path, kernel: dict[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root").mkdir()
    kernel[str(tmp_path)] = V2_FILES

    def refuse(folder: str, name: str, value: str) -> None:
        raise OSError(13, name)

    monkeypatch.setattr(cgroup, "_put", refuse)
    assert create([Mount(2, (), str(tmp_path / "root"), str(tmp_path / "root"))], "g", LIMITS) is None
    assert not any(tmp_path.rglob("g"))


def test_no_limit_is_set_where_none_is_asked(tmp_path: Path, kernel: dict[str, tuple[str, ...]]) -> None:
    group = create(v1(tmp_path, kernel), "g", Limits(0, 0))
    assert group is not None
    assert (tmp_path / "cpu/g/cpu.cfs_quota_us").read_text() == ""
    assert (tmp_path / "memory/g/memory.limit_in_bytes").read_text() == ""
    (tmp_path / "root").mkdir()
    kernel[str(tmp_path / "root")] = V2_FILES
    group = create([Mount(2, (), str(tmp_path / "root"), str(tmp_path / "root"))], "g", Limits(0, 0))
    assert group is not None
    assert (tmp_path / "root/g/cpu.max").read_text() == ""


@pytest.mark.parametrize(("file", "written"), [("cgroup.kill", "1"), ("pids.max", "0")])
def test_a_kill_stops_forks_and_ends_what_is_inside(tmp_path: Path, file: str, written: str) -> None:
    (tmp_path / file).touch()
    with subprocess.Popen(["sleep", "600"]) as inside:
        (tmp_path / "cgroup.procs").write_text(f"{inside.pid}\n999999999\n")
        Group(1, (str(tmp_path),)).kill()
        assert inside.wait() == -signal.SIGKILL
    assert (tmp_path / file).read_text() == written


def test_a_group_that_is_gone_is_empty(tmp_path: Path) -> None:
    group = Group(1, (str(tmp_path / "gone"),))
    group.kill()
    assert group.pids() == []
    assert group.oom_kills() == 0


def test_a_busy_group_stays(tmp_path: Path) -> None:
    (tmp_path / "child").mkdir()
    assert not Group(1, (str(tmp_path),)).remove()
