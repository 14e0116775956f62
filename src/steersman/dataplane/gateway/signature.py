"""What a model takes and gives, as its replicas say in HELLO. Pools are one signature each."""

from typing import Literal

import msgspec


class Tensor(msgspec.Struct, frozen=True):
    """One input or output; `shape` is without the batch dimension, None for any size."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Signature(msgspec.Struct, frozen=True):
    """Equal signatures share queues and batches. `kind` json: rows are JSON texts, without tensors."""

    kind: Literal["tensor", "json"]
    stream: bool = False
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    batch_size_max: int = 1
