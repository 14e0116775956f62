"""A Python object as a model: rows are JSON texts, in and out.

``module:attribute`` is imported with the service's workdir first on the path. The attribute may be

* a function ``f(row)``, called once for each row;
* a function with an attribute ``batched = True``: ``f([row, …])`` answers a list of as many values;
* a coroutine function, of either form; many run at once;
* a generator or async generator function: its values are sent as they come;
* a class: made once without arguments; ``load()`` is called when it has one; ``predict`` or ``__call__`` is
  the function (``batched = True`` may stand in the class); or such an object, made already.

A row that fails fails alone. ``None`` is no answer: a function that forgot to return must not look well.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, NamedTuple

from steersman.dataplane.replica.errors import (
    BAD_FRAME,
    MODEL_ERROR,
    WRONG_SHAPE,
    BatchError,
    LoadError,
    one_line,
)
from steersman.dataplane.replica.model import Meta, Pieces, Signature
from steersman.dataplane.replica.user_code import Guard
from steersman.ports import replica_wire as wire

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_HINT_TARGET = "write the target as module:attribute, for example model:predict"
_NOTHING = b"null"
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


class Target(NamedTuple):
    """What is called, and how. `form`: sync, async, generator or async-generator."""

    call: Callable[..., Any]
    form: str
    batched: bool


class Failed(NamedTuple):
    """A row without a value."""

    text: str


def find(target: str) -> Target:
    """Import and prepare what a target names. Raises LoadError."""
    if not _TARGET.fullmatch(target):
        raise LoadError(f"the target {target[:200]!r} is none", hint=_HINT_TARGET)
    module, _, names = target.partition(":")
    with Guard() as guard:
        found: Any = importlib.import_module(module)
    if guard.error is not None:
        raise _import_failure(module, guard.error) from guard.error
    for name in names.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise LoadError(f"the module {module} has no {names}", hint=_HINT_TARGET) from error
    return _prepared(found, target)


def _import_failure(module: str, error: BaseException) -> LoadError:
    why = one_line(f"{type(error).__name__}: {error}")
    if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
        return LoadError(f"there is no module {module} in the workdir", hint="check workdir and target")
    hint = "run `python -c 'import " + module + "'` in the workdir with the service's interpreter"
    if isinstance(error, ImportError):
        hint = "install what it needs in the service's setup, or name its interpreter"
    return LoadError(
        f"importing {module} failed: {why}", hint=hint, lasting=isinstance(error, (ImportError, SyntaxError))
    )


def _prepared(found: Any, target: str) -> Target:
    holder, call = found, None
    if inspect.isclass(found):
        holder = _made(found, target)
    if inspect.isroutine(holder):
        call = holder
    else:
        call = getattr(holder, "predict", None) or (holder if callable(holder) else None)
    if not callable(call):
        raise LoadError(f"{target} cannot be called", hint="give it a method predict, or name a function")
    batched = bool(getattr(call, "batched", False) or getattr(holder, "batched", False))
    form = _form(call)
    if batched and "generator" in form:
        raise LoadError(f"{target} is a generator and batched", hint="a stream answers one row: drop batched")
    return Target(call, form, batched)


def _made(kind: type, target: str) -> Any:
    if inspect.iscoroutinefunction(getattr(kind, "load", None)):
        raise LoadError(f"load() of {target} is a coroutine function", hint="make it a plain function")
    with Guard() as guard:
        holder = kind()
        load = getattr(holder, "load", None)
        if callable(load):
            load()
    if guard.error is not None:
        why = one_line(f"{type(guard.error).__name__}: {guard.error}")
        raise LoadError(
            f"making {target} failed: {why}", hint="its trace is above", lasting=False
        ) from guard.error
    return holder


def _form(call: Callable[..., Any]) -> str:
    """Which of the four; of an object with ``__call__``, that of the method."""
    function = call if inspect.isroutine(call) else type(call).__call__
    if inspect.isasyncgenfunction(function):
        return "async-generator"
    if inspect.isgeneratorfunction(function):
        return "generator"
    return "async" if inspect.iscoroutinefunction(function) else "sync"


def read_rows(frame: wire.Frame) -> list[Any]:
    """The rows of a batch. Raises BatchError."""
    lengths = frame.meta.get("lengths")
    if not isinstance(lengths, list) or len(lengths) != frame.rows:
        raise BatchError(BAD_FRAME, "a batch without the lengths of its rows")
    rows, place = [], 0
    for length in lengths:
        if type(length) is not int or length < 0 or place + length > len(frame.payload):
            raise BatchError(BAD_FRAME, "the lengths of a batch's rows are not those of its bytes")
        try:
            rows.append(json.loads(bytes(frame.payload[place : place + length])))
        except (ValueError, RecursionError) as error:
            raise BatchError(BAD_FRAME, "a row is no JSON") from error
        place += length
    if place != len(frame.payload):
        raise BatchError(BAD_FRAME, "a batch has more bytes than its rows")
    return rows


def write_rows(values: list[Any]) -> tuple[Meta, Pieces]:
    """Values, or what failed, as the meta and payload of RESULT. Raises BatchError."""
    texts: list[bytes] = []
    errors: dict[str, str] = {}
    invalid: list[int] = []
    for row, value in enumerate(values):
        text, problem = (None, value.text) if isinstance(value, Failed) else write_value(value)
        texts.append(_NOTHING if text is None else text)
        if problem != "" and not isinstance(value, Failed):  # what the model raised is in the log already
            sys.stderr.write(f"an answer cannot be sent: {problem or 'it holds NaN or infinity'}\n")
        if problem is None:
            invalid.append(row)
        elif problem:
            errors[str(row)] = problem
    if sum(map(len, texts)) > wire.BODY_BYTES_MAX - wire.META_BYTES_MAX:
        raise BatchError(MODEL_ERROR, "the answers of the model are larger than a frame may be")
    meta: Meta = {"lengths": list(map(len, texts))}
    if errors:
        meta["errors"] = errors
    if invalid:
        meta["invalid"] = invalid
    return meta, [b"".join(texts)]


def write_value(value: Any) -> tuple[bytes | None, str | None]:
    """A value as JSON; else no text and why: words, or None when it holds NaN or infinity."""
    if value is None:
        return None, "the model returned nothing"
    with Guard() as guard:
        try:
            return _ENCODER.encode(value).encode(), ""
        except ValueError:
            json.dumps(value)  # raises again, unless only the numbers were at fault
            return None, None
        except TypeError:
            return None, one_line(f"the model returned a {type(value).__name__} that is not JSON")
    return None, guard.text


class CallableModel:
    """A plain function, served in this thread."""

    def __init__(self, target: Target, rows_max: int) -> None:
        self._target = target
        self.signature = Signature(kind="json", batch_size_max=rows_max)

    def run(self, frame: wire.Frame) -> tuple[Meta, Pieces]:
        """One batch. Raises BatchError."""
        rows = read_rows(frame)
        if self._target.batched:
            with Guard() as guard:
                values = self._target.call(rows)
            if guard.text is not None:
                raise BatchError(MODEL_ERROR, guard.text)
            return write_rows(_as_many(values, len(rows)))
        return write_rows([self._one(row) for row in rows])

    def _one(self, row: Any) -> Any:
        with Guard() as guard:
            return self._target.call(row)
        return Failed(guard.text or "")


def _as_many(values: Any, rows: int) -> list[Any]:
    if not isinstance(values, (list, tuple)):
        raise BatchError(
            WRONG_SHAPE, one_line(f"the model returned a {type(values).__name__} for a list of rows")
        )
    if len(values) != rows:
        words = f"the model returned {len(values)} values for {rows} rows"
        sys.stderr.write(f"an answer cannot be sent: {words}\n")
        raise BatchError(WRONG_SHAPE, words)
    return list(values)


class AsyncCallableModel:
    """A coroutine function or a stream. Unless batched, rows come one a batch: each is answered when done."""

    def __init__(self, target: Target, rows_max: int) -> None:
        self._target = target
        self.signature = Signature(
            kind="json", batch_size_max=rows_max if target.batched else 1, stream="generator" in target.form
        )

    def read(self, frame: wire.Frame) -> list[Any]:
        """The rows. Raises BatchError."""
        return read_rows(frame)

    async def run(self, rows: list[Any]) -> tuple[Meta, Pieces]:
        """One batch. Raises BatchError."""
        with Guard() as guard:
            values = await self._target.call(rows if self._target.batched else rows[0])
        if not self._target.batched:
            return write_rows([values if guard.text is None else Failed(guard.text)])
        if guard.text is not None:
            raise BatchError(MODEL_ERROR, guard.text)
        return write_rows(_as_many(values, len(rows)))

    async def parts(self, row: Any) -> AsyncGenerator[bytes, None]:
        """The pieces of one row's answer. Raises BatchError. Closing it closes the user's generator.

        The steps of plain generators are taken in this thread, in turn: models are seldom safe in threads.
        """
        with Guard() as guard:
            steps = self._target.call(row)
        if guard.text is not None:
            raise BatchError(MODEL_ERROR, guard.text)
        step = steps.__anext__ if self._target.form == "async-generator" else _stepper(steps)
        try:
            while True:
                value = await _next(step)
                if isinstance(value, _End):
                    return
                text, problem = write_value(value)
                if text is None:
                    raise BatchError(MODEL_ERROR, problem or "the model gave NaN or infinity")
                yield text
        finally:
            await _close(steps)


class _End:
    """A generator has no more values."""


async def _next(step: Callable[[], Any]) -> Any:
    with Guard() as guard:
        try:
            return await step()
        except StopAsyncIteration:
            return _End()
    raise BatchError(MODEL_ERROR, guard.text or "")


def _stepper(steps: Iterator[Any]) -> Callable[[], Any]:
    async def step() -> Any:
        return next(steps, _End())

    return step


async def _close(steps: Any) -> None:
    with Guard():
        if hasattr(steps, "aclose"):
            await steps.aclose()
        else:
            steps.close()
