"""A folder of checkpoints on a real disk: whole or absent, checked before use, kept by the rule."""

import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman_trainer.errors import CheckpointError, TrainerError
from steersman_trainer.store import CheckpointStore, problem


def make(folder: Path, *, keep: int = 3) -> CheckpointStore:
    return CheckpointStore(folder, run_id="job.1", keep=keep)


def saver(text: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "state.txt").write_text(text)
        (folder / "deep" / "more.bin").write_bytes(text.encode() * 3)

    return write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def at(folder: Path, step: int) -> Path:
    return folder / f"step-{step:012d}"


def test_a_published_checkpoint_is_whole_and_found(tmp_path: Path) -> None:
    store = make(tmp_path / "new" / "folder")
    assert store.publish(5, saver("five"))
    found, skipped = store.newest_valid()
    assert found == (5, at(store.folder, 5))
    assert skipped == []
    assert names(store.folder) == ["step-000000000005"]
    manifest = json.loads((at(store.folder, 5) / "manifest.json").read_text())
    assert manifest["run"] == "job.1"
    assert manifest["step"] == 5
    assert sorted(manifest["files"]) == ["deep/more.bin", "state.txt"]
    assert manifest["files"]["state.txt"]["size"] == 4


def test_an_absent_folder_has_no_checkpoint(tmp_path: Path) -> None:
    store = make(tmp_path / "absent")
    assert store.newest_valid() == (None, [])
    assert store.remove_leftovers() == []


def test_a_folder_that_cannot_be_read_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be read"):
        make(tmp_path / "file").newest_valid()


def test_the_same_step_is_not_saved_twice(tmp_path: Path) -> None:
    store = make(tmp_path)
    store.publish(5, saver("first"))
    assert not store.publish(5, saver("second"))
    assert (at(tmp_path, 5) / "state.txt").read_text() == "first"


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    store = make(tmp_path)
    store.publish(5, saver("first"))
    (at(tmp_path, 5) / "state.txt").write_text("FIRST")
    assert store.newest_valid()[0] is None
    assert store.publish(5, saver("second"))
    assert store.newest_valid()[0] == (5, at(tmp_path, 5))
    assert names(tmp_path) == ["step-000000000005"]


def test_a_plain_file_where_a_checkpoint_should_be_is_replaced(tmp_path: Path) -> None:
    at(tmp_path, 5).write_text("")
    assert make(tmp_path).publish(5, saver("x"))
    assert problem(at(tmp_path, 5)) == ""


VICTIMS = st.sampled_from(["state.txt", "deep/more.bin", "manifest.json"])


@settings(max_examples=80, deadline=None)
@given(victim=VICTIMS, share=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_one_changed_byte_anywhere_loads_nothing_wrong(
    tmp_path_factory: pytest.TempPathFactory, victim: str, share: float, change: int
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    store = make(folder)
    store.publish(1, saver("older"))
    store.publish(2, saver("newest"))
    before = json.loads((at(folder, 2) / "manifest.json").read_text())
    path = at(folder, 2) / victim
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= change
    path.write_bytes(content)
    found, skipped = make(folder).newest_valid()
    if victim == "manifest.json" and not skipped:
        # A changed time or run name is still a manifest: what it says of the files must not have changed.
        after = json.loads(content)
        assert (after["step"], after["files"]) == (before["step"], before["files"])
        return
    assert found == (1, at(folder, 1))
    assert [entry.path for entry in skipped] == [at(folder, 2)]


@settings(max_examples=40, deadline=None)
@given(victim=VICTIMS, share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_is_found(
    tmp_path_factory: pytest.TempPathFactory, victim: str, share: float
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    make(folder).publish(2, saver("newest"))
    path = at(folder, 2) / victim
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * share))
    assert make(folder).newest_valid()[0] is None


def lose_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def lose_file(path: Path) -> None:
    (path / "state.txt").unlink()


def link_file(path: Path) -> None:
    (path / "state.txt").rename(path.parent / "outside")
    (path / "state.txt").symlink_to(path.parent / "outside")


def link_inside(path: Path) -> None:
    (path / "state.txt").rename(path / "other")
    (path / "state.txt").symlink_to("other")


def link_folder(path: Path) -> None:
    (path / "deep").rename(path.parent / "outside")
    (path / "deep").symlink_to(path.parent / "outside")


def pipe(path: Path) -> None:
    (path / "state.txt").unlink()
    os.mkfifo(path / "state.txt")


def pipe_for_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()
    os.mkfifo(path / "manifest.json")


def other_step(path: Path) -> None:
    path.rename(path.with_name("step-000000000009"))


def climbing_name(path: Path) -> None:
    (path.parent / "secret").write_text("s3cret")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../secret"] = manifest["files"]["state.txt"]
    (path / "manifest.json").write_text(json.dumps(manifest))


def folder_for_file(path: Path) -> None:
    (path / "state.txt").unlink()
    (path / "state.txt").mkdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lose_manifest, "manifest.json"),
        (lose_file, "state.txt"),
        (link_file, "leads out"),
        (link_inside, "leads out"),
        (link_folder, "leads out"),
        (pipe, "not a regular file"),
        (pipe_for_manifest, "not a regular file"),
        (other_step, "of step 2"),
        (climbing_name, "plain relative path"),
        (folder_for_file, "not a regular file"),
    ],
)
def test_a_checkpoint_that_is_not_as_published_is_skipped(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    store = make(tmp_path)
    store.publish(1, saver("older"))
    store.publish(2, saver("newest"))
    damage(at(tmp_path, 2))
    found, skipped = store.newest_valid()
    assert found == (1, at(tmp_path, 1))
    assert words in skipped[0].reason


def test_names_that_are_not_checkpoints_are_not_looked_at(tmp_path: Path) -> None:
    for name in ("step-1", "step-0000000000001", "step-00000000000x", "notes", ".tmp-x", "step-٠٠٠٠٠٠٠٠٠٠٠١"):
        (tmp_path / name).mkdir()
    assert make(tmp_path).newest_valid() == (None, [])


def test_the_newest_are_kept(tmp_path: Path) -> None:
    store = make(tmp_path, keep=2)
    for step in range(1, 6):
        store.publish(step, saver(str(step)))
    assert names(tmp_path) == [at(tmp_path, 4).name, at(tmp_path, 5).name]


def test_damaged_ones_do_not_count_as_kept(tmp_path: Path) -> None:
    store = make(tmp_path, keep=2)
    for step in (1, 2):
        store.publish(step, saver(str(step)))
    (at(tmp_path, 2) / "state.txt").write_text("X")  # same size: only the digest tells
    assert store.newest_valid()[0] == (1, at(tmp_path, 1))
    store.publish(3, saver("3"))
    # The damaged one stays too: what cannot be read now is not deleted for that alone.
    assert names(tmp_path) == [at(tmp_path, step).name for step in (1, 2, 3)]
    store.publish(4, saver("4"))
    assert names(tmp_path) == [at(tmp_path, step).name for step in (3, 4)]


def test_one_that_lost_a_file_does_not_count_as_kept_even_unread(tmp_path: Path) -> None:
    store = make(tmp_path, keep=2)
    for step in (1, 2):
        store.publish(step, saver(str(step)))
    lose_file(at(tmp_path, 2))
    store.publish(3, saver("3"))
    assert at(tmp_path, 1).exists()


def test_the_one_just_published_stays_below_damaged_later_ones(tmp_path: Path) -> None:
    store = make(tmp_path, keep=1)
    store.publish(9, saver("9"))
    (at(tmp_path, 9) / "state.txt").write_text("X")
    assert store.newest_valid()[0] is None
    store.publish(4, saver("4"))
    assert make(tmp_path).newest_valid()[0] == (4, at(tmp_path, 4))
    assert at(tmp_path, 9).exists()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=12),
    st.integers(1, 3),
)
def test_there_is_always_a_valid_one_once_one_was_published(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[int, bool]], keep: int
) -> None:
    folder = tmp_path_factory.mktemp("acts")
    store = make(folder, keep=keep)
    for step, damage in acts:
        published = store.publish(step, saver(str(step)))
        valid = sorted(path for path in folder.iterdir() if not problem(path))
        assert at(folder, step) in valid
        if published:  # what is there already is left alone, and so are those beside it
            assert len([path for path in valid if path < at(folder, step)]) < keep
        if damage and len(valid) > 1:
            (valid[-1] / "state.txt").write_text("#")
            store.newest_valid()
        assert any(not problem(path) for path in folder.iterdir())


def test_a_write_that_fails_leaves_no_trace(tmp_path: Path) -> None:
    store = make(tmp_path)
    store.publish(1, saver("1"))

    def full(folder: Path) -> None:
        (folder / "half").write_bytes(b"x" * 100)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left") as caught:
        store.publish(2, full)
    assert isinstance(caught.value.__cause__, OSError)
    assert "hint: free space" in str(caught.value)
    assert names(tmp_path) == [at(tmp_path, 1).name]

    def broken(folder: Path) -> None:
        (folder / "half").write_bytes(b"x" * 100)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.publish(2, broken)
    assert names(tmp_path) == [at(tmp_path, 1).name]
    assert store.newest_valid()[0] == (1, at(tmp_path, 1))


def write_nothing(folder: Path) -> None:
    assert list(folder.iterdir()) == []


def write_link(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")


def write_folder_link(folder: Path) -> None:
    (folder / "link").symlink_to("/etc")


def write_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def write_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


def write_bad_name(folder: Path) -> None:
    (folder / "a\nb").write_text("")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_nothing, "left 0 files"),
        (write_link, "link is not a regular file"),
        (write_folder_link, "link is not a regular file"),
        (write_pipe, "pipe is not a regular file"),
        (write_manifest, "taken by the manifest"),
        (write_bad_name, "unprintable"),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path: Path, write: Callable[[Path], None], words: str) -> None:
    with pytest.raises(TrainerError, match=words) as caught:
        make(tmp_path).publish(1, write)
    assert not isinstance(caught.value, CheckpointError)
    assert names(tmp_path) == []


def test_a_write_that_takes_its_folder_away_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="step 1"):
        make(tmp_path).publish(1, Path.rmdir)
    assert names(tmp_path) == []


def test_leftovers_of_dead_writers_are_removed_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    for name in (".tmp-dead", ".tmp-alive"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("x")
    (tmp_path / ".tmp-file").write_text("not a folder: not ours")
    handle = os.open(tmp_path / ".tmp-alive", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert make(tmp_path).remove_leftovers() == [tmp_path / ".tmp-dead"]
    finally:
        os.close(handle)
    assert names(tmp_path) == [".tmp-alive", ".tmp-file"]


def test_a_second_writer_does_not_remove_what_the_first_is_writing(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "state").write_text("x")
        assert make(tmp_path).remove_leftovers() == []

    assert make(tmp_path).publish(1, write)


def test_a_checkpoint_that_cannot_be_deleted_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(tmp_path, keep=1)
    store.publish(1, saver("1"))
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self == at(tmp_path, 1):
            raise PermissionError(errno.EACCES, "refused")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    assert store.publish(2, saver("2"))
    assert problem(at(tmp_path, 1)) == ""


def test_everything_is_synced_before_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(handle: int) -> None:
        log.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
        fsync(handle)

    def noted_rename(self: Path, target: Path) -> Path:
        log.append(f"rename {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    make(tmp_path).publish(3, saver("x"))
    temporary = next(entry.removeprefix("fsync ") for entry in log if ".tmp-" in entry)
    assert log == [
        "fsync more.bin",
        "fsync deep",
        "fsync state.txt",
        f"fsync {temporary}",
        "fsync manifest.json",
        f"fsync {temporary}",
        "rename step-000000000003",
        f"fsync {tmp_path.name}",
    ]


def test_permissions_follow_the_users_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        make(tmp_path).publish(1, saver("x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(at(tmp_path, 1).stat().st_mode) == 0o750
