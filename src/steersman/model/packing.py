"""What work has asked for so far, and what the packer learned from it: counts, not guesses.

Theory of operation. A node is worth what the work still to come can use of it (`decide/pack`), and that is
learned from what has come. `fold` counts each admission here; a cycle that has learned anew records a
`PackingUpdate` with its intent, so that what was learned, and when, is in the journal and replay needs
nothing else.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec


class Ask(NamedTuple):
    """What one rank asks for, as packing sees it. No models: any. `gpu_milli` is for each GPU, 1 to 1000; 0
    without GPUs."""

    cpu_milli: int
    memory_bytes: int
    gpus: int
    gpu_milli: int
    models: tuple[str, ...] = ()


class Basis(NamedTuple):
    """What was learned from: arrivals by ask, open residuals (size, GPUs), thousandths of GPUs free."""

    counts: tuple[tuple[Ask, int], ...] = ()
    stock: tuple[tuple[int, int], ...] = ()
    free: int = 0


class PackingUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What a cycle learned for packing.

    With `learned` the basis is made anew, of the counts as they stand and of `stock` and `free`; the prices
    (thousandths of a GPU, by flavor) are new in any case.
    """

    learned: bool
    stock: tuple[tuple[int, int], ...] = ()
    free: int = 0
    prices: tuple[tuple[str, int], ...] = ()


class Packing(msgspec.Struct, frozen=True, kw_only=True):
    """All that packing remembers. `counts`: arrivals that asked for GPUs (what is old fades), `arrived` their
    sum; `since_price`: arrivals of any kind since the prices were set."""

    counts: Mapping[Ask, int] = {}
    arrived: int = 0
    basis: Basis = Basis()
    prices: tuple[tuple[str, int], ...] = ()
    since_price: int = 0
