"""Model files: what they hold when they are declared, and their bytes in the home's store.

Theory of operation. A declaration names a file by its path and by the digest of its content at that moment;
what is served is that content, whatever becomes of the path later. The digest is taken when a submission is
read, by `plan` too; the bytes are copied into the store by `up` alone, before anything is committed. A file
that is changed between the two is told, and then nothing counts. The store names files by digest, so that
storing twice is harmless and a half-made copy is never seen under a name.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from steersman.hosting.files import sync_folder
from steersman.model.errors import HomeError, SpecError
from steersman.ports import run_dir

MODEL_BYTES_MAX = 2 * 2**30
"""The largest model file, in bytes: 2 GiB."""
CHUNK_BYTES = 2**20
DIGEST_PREFIX = "sha256:"
FILE_MODE = 0o600
FOLDER_MODE = 0o700


def model_digest(path: Path) -> str:
    """``sha256:<hex>`` of a model file. Raises SpecError, without a place."""
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return f"{DIGEST_PREFIX}{digest.hexdigest()}"


def store_model(home: Path, path: Path, digest: str) -> Path:
    """Where the file's content is kept, whole and durable.

    Raises SpecError when the file holds something else by now, HomeError when it cannot be kept.
    """
    hexadecimal = digest.removeprefix(DIGEST_PREFIX)
    store = home / run_dir.ARTIFACTS / "sha256"
    target = store / hexadecimal
    if target.is_file():
        return target
    with _refused(store):
        for folder in (store.parent, store):
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    temporary = store / f".{hexadecimal}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        if _copy(path, temporary) != hexadecimal:
            raise SpecError(f"the model {str(path)!r} was changed while it was read", hint="say it again")
        with _refused(store):
            temporary.rename(target)
            sync_folder(store)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target


def _copy(path: Path, temporary: Path) -> str:
    """Copy a model file; the digest of what was copied."""
    digest = hashlib.sha256()
    with _refused(temporary.parent):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in _chunks(path):
            digest.update(chunk)
            with _refused(temporary.parent):
                file.write(chunk)
        with _refused(temporary.parent):
            file.flush()
            os.fsync(descriptor)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    """The content of a model file, within the limit. Raises SpecError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SpecError(f"the model {str(path)!r} is not a file", hint="give the path of an ONNX file")
        size = 0
        while chunk := _read(descriptor, path):
            size += len(chunk)
            if size > MODEL_BYTES_MAX:
                raise SpecError(
                    f"the model {str(path)!r} is larger than {MODEL_BYTES_MAX // 2**30} GiB",
                    hint="serve it through a `callable` that reads it by its absolute path",
                )
            yield chunk
        if not size:
            raise SpecError(f"the model {str(path)!r} is empty", hint="give the path of an ONNX file")
    finally:
        os.close(descriptor)


def _read(descriptor: int, path: Path) -> bytes:
    try:
        return os.read(descriptor, CHUNK_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> SpecError:
    if isinstance(error, FileNotFoundError):
        return SpecError(
            f"the model {str(path)!r} does not exist",
            hint="it is relative to `workdir`, or else to the file's folder",
        )
    return SpecError(f"the model {str(path)!r} cannot be read: {error.strerror}", hint="check its mode")


@contextlib.contextmanager
def _refused(store: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HomeError(
            f"cannot keep a model in {store}: {error.strerror or error}",
            hint="check the disk, and who owns the home folder and its mode",
        ) from error
