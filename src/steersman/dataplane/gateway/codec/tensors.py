"""Tensors between JSON, raw little-endian bytes and the decoder's types. No numpy: `msgspec` and `struct`.

Theory: an input of a signature is compiled once into a type of the decoder: nested lists whose lengths are
the fixed dims, around a number with its bounds. So dtype, shape and range are checked in the one C pass that
reads the text, and a pack of the flattened list makes the bytes. Dims of any size (None) are measured after.
The binary form is checked on the bytes: sizes, exponents of all ones (NaN, infinity) by a strided slice and
`in`, bools by deletion; numbers are unpacked only where a range is declared.

A range is read in the input's own precision: its bound is the nearest value of the dtype, and text is
accepted if it rounds to a value within. So a tensor is accepted as text exactly when it is accepted as bytes.
A dim of any size is at least 1.
"""

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from types import GenericAlias
from typing import Annotated, Any, Final

import msgspec

from steersman.dataplane.gateway.codec.refusals import BadRequest, shown
from steersman.dataplane.gateway.signature import Tensor
from steersman.model.service import InputRange
from steersman.ports.replica_wire import DTYPE_BYTES

CODES: Final = {
    "BOOL": "?", "UINT8": "B", "INT8": "b", "UINT16": "H", "INT16": "h", "FP16": "e",
    "UINT32": "I", "INT32": "i", "FP32": "f", "UINT64": "Q", "INT64": "q", "FP64": "d",
}  # fmt: skip
"""Format characters of `struct`."""
FLOATS: Final = frozenset({"FP16", "FP32", "FP64"})
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1  # bounds that the decoder can check itself
DOUBLE_MAX: Final = math.nextafter(math.inf, 0)

_FP16_NOT_FINITE: Final = bytes([*range(0x7C, 0x80), *range(0xFC, 0x100)])
_BOOL_BYTES: Final = b"\x00\x01"
_annotated: Any = Annotated  # built from values, which a type checker does not read as types


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """One input, compiled. `row` is the decoder's type of one row, `element` that of one number.

    `low`, `high`: what a value may be, None where the type's own bytes are the bound; `ranged`: a range was
    declared. `wide`: the decoder cannot check these bounds, `pack` does. `takes` says it all in words.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    code: str
    item_bytes: int
    fixed: bool
    element: Any
    row: Any
    low: float | None
    high: float | None
    ranged: bool
    wide: bool
    takes: str


def compile_input(tensor: Tensor, declared: InputRange | None) -> Input:
    """An input of a dtype in DTYPE_BYTES, with the range declared for it."""
    code = CODES[tensor.dtype]
    minimum, maximum = (declared.minimum, declared.maximum) if declared else (None, None)
    if tensor.dtype == "BOOL":
        minimum = maximum = None
    low, high = _bounds(tensor.dtype, code, minimum, maximum)
    element = _element(tensor.dtype, low, high)
    return Input(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=tensor.shape,
        code=code,
        item_bytes=DTYPE_BYTES[tensor.dtype],
        fixed=None not in tensor.shape,
        element=element,
        row=nested(element, tensor.shape),
        low=low,
        high=high,
        ranged=minimum is not None or maximum is not None,
        wide=tensor.dtype not in FLOATS and any(abs(bound or 0) > INT64_MAX + 1 for bound in (low, high)),
        takes=_takes(tensor, minimum, maximum),
    )


def nested(element: Any, shape: Sequence[int | None]) -> Any:
    """The decoder's type of nested lists of a shape; a dim of any size has at least one."""
    for dim in reversed(shape):
        lengths = msgspec.Meta(min_length=1) if dim is None else msgspec.Meta(min_length=dim, max_length=dim)
        element = _annotated[GenericAlias(list, (element,)), lengths]
    return element


def flatten(values: Iterable[Any], levels: int) -> Iterable[Any]:
    """The values `levels` lists further in, in C order."""
    for _ in range(levels):
        values = chain.from_iterable(values)
    return values


def pack_rows(one: Input, rows: list[Any], where: str) -> tuple[tuple[int, ...], bytes]:
    """The dims of a row and the bytes of all rows. `rows` has passed the decoder; `where` is for messages.

    Raises BadRequest when the rows are ragged, or a UINT64 is too large.
    """
    rank = len(one.shape)
    if one.fixed:
        dims: tuple[int, ...] = tuple(dim for dim in one.shape if dim is not None)
        flat = list(flatten(rows, rank))
    else:
        dims, flat = _measured(one, rows, where)
    return dims, pack(one, flat, where)


def pack(one: Input, flat: Sequence[Any], where: str) -> bytes:
    """Bytes of numbers that have passed the decoder; bounds that it cannot check are checked here."""
    if one.wide and flat:
        check_range(one, flat, where)
    return struct.pack(f"<{len(flat)}{one.code}", *flat)


def check_binary(one: Input, data: bytes) -> None:
    """Refuse bytes that hold NaN, infinity, a bool that is neither 0 nor 1, or a value out of range."""
    if one.dtype == "BOOL" and data.translate(None, _BOOL_BYTES):
        raise BadRequest(f"input {shown(one.name)}: a BOOL byte is neither 0 nor 1")
    if one.dtype in FLOATS and not _finite(one, data):
        raise BadRequest(f"input {shown(one.name)}: a value is NaN or infinite", hint=one.takes)
    if one.ranged and data:
        check_range(one, _values(one.code, one.item_bytes, data), f"input {shown(one.name)}")


def check_range(one: Input, values: Sequence[Any], where: str) -> None:
    """Refuse a value beyond the bounds. `values` are one or more."""
    if one.high is not None and max(values) > one.high:
        raise beyond(one, where, above=True)
    if one.low is not None and min(values) < one.low:
        raise beyond(one, where, above=False)


def beyond(one: Input, where: str, *, above: bool) -> BadRequest:
    """The refusal of a value out of its bounds."""
    side = "above the largest" if above else "below the least"
    return BadRequest(f"{where}: a value is {side} accepted", hint=one.takes)


def nest(flat: Sequence[Any], dims: Sequence[int]) -> Any:
    """A flat sequence as nested lists of those dims; the single value itself when there are none."""
    if not dims:
        return flat[0]
    for level in range(len(dims) - 1, 0, -1):
        dim = dims[level]
        flat = [flat[at * dim : (at + 1) * dim] for at in range(math.prod(dims[:level]))]
    return flat


def unpacker(dtype: str) -> Callable[[bytes], tuple[Any, ...]]:
    """Function from raw bytes to numbers."""
    code, size = CODES[dtype], DTYPE_BYTES[dtype]
    return lambda data: _values(code, size, data)


def _values(code: str, item_bytes: int, data: bytes) -> tuple[Any, ...]:
    return struct.unpack(f"<{len(data) // item_bytes}{code}", data)


def _finite(one: Input, data: bytes) -> bool:
    tops = data[one.item_bytes - 1 :: one.item_bytes]  # sign and the exponent's high bits
    if one.dtype == "FP16":
        return len(tops.translate(None, _FP16_NOT_FINITE)) == len(tops)
    if b"\x7f" not in tops and b"\xff" not in tops:
        return True  # no exponent is near all ones
    return all(map(math.isfinite, _values(one.code, one.item_bytes, data)))


def _measured(one: Input, rows: list[Any], where: str) -> tuple[tuple[int, ...], list[Any]]:
    """Dims and values of rows with dims of any size. Raises BadRequest when lists of one level differ."""
    dims: list[int] = []
    level = rows
    for fixed in one.shape:
        sizes = list(map(len, level))
        if sizes.count(sizes[0]) != len(sizes):
            odd = next(at for at, size in enumerate(sizes) if size != sizes[0])
            raise _ragged(one, where, _index_path(odd, [len(rows), *dims]), sizes[0], sizes[odd])
        dims.append(sizes[0] if fixed is None else fixed)
        level = list(chain.from_iterable(level))
    return tuple(dims), level


def _ragged(one: Input, where: str, path: str, first: int, odd: int) -> BadRequest:
    return BadRequest(
        f"{where}: the list at {path} has {odd} items where the first has {first}; all must be as long",
        hint=f"{one.takes}; pad the rows to one length, or send them as requests of their own",
    )


def _index_path(flat_index: int, dims: Sequence[int]) -> str:
    """``[row][i][j]`` of a place counted in C order."""
    parts: list[str] = []
    for dim in reversed(dims):
        flat_index, at = divmod(flat_index, dim)
        parts.append(f"[{at}]")
    return "".join(reversed(parts))


def _element(dtype: str, low: float | None, high: float | None) -> Any:
    if dtype == "BOOL":
        return bool
    if dtype in FLOATS:
        return float if low is None and high is None else _annotated[float, msgspec.Meta(ge=low, le=high)]
    least, most = (min(max(int(bound or 0), INT64_MIN), INT64_MAX) for bound in (low, high))
    return _annotated[int, msgspec.Meta(ge=least, le=None if (high or 0) > INT64_MAX else most)]


def _bounds(
    dtype: str, code: str, minimum: float | None, maximum: float | None
) -> tuple[float | None, float | None]:
    """The least and the largest number that text may give, so that what it rounds to is within."""
    if dtype == "BOOL":
        return None, None
    if dtype == "FP64":
        return minimum, maximum
    if dtype in FLOATS:
        return (
            -_upper(math.inf if minimum is None else -minimum, code),
            _upper(math.inf if maximum is None else maximum, code),
        )
    bits = DTYPE_BYTES[dtype] * 8
    least, most = (0, 2**bits - 1) if dtype[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (
        least if minimum is None else max(least, math.ceil(minimum)),
        most if maximum is None else min(most, math.floor(maximum)),
    )


def _upper(bound: float, code: str) -> float:
    """The largest double that rounds to at most the dtype's value nearest to `bound`; all finite ones if that
    is infinite. Found by halving: rounding keeps order."""
    near = min(_rounded(bound, code), DOUBLE_MAX)
    if near == -math.inf:
        return bound  # below every value of the dtype: nothing is accepted
    inside, outside = (0.0 if near == DOUBLE_MAX else near), DOUBLE_MAX
    while (middle := inside / 2 + outside / 2) not in {inside, outside}:
        if _rounded(middle, code) <= near:
            inside = middle
        else:
            outside = middle
    return inside


def _rounded(value: float, code: str) -> float:
    try:
        return float(struct.unpack(f"<{code}", struct.pack(f"<{code}", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def _takes(tensor: Tensor, minimum: float | None, maximum: float | None) -> str:
    """What an input takes, in words, for hints."""
    shape = ", ".join("any" if dim is None else str(dim) for dim in tensor.shape)
    least = "" if minimum is None else f", at least {minimum:g}"
    most = "" if maximum is None else f", at most {maximum:g}"
    return f"{shown(tensor.name)} takes {tensor.dtype} of shape [{shape}]{least}{most}"
