"""Every bound of the front, with its unit. Tests shorten the times; a deployment has no reason to.

The deadlines are absolute: a peer that sends one byte now and then gains nothing by it. They are looked at
every `sweep_s`, so that is how late one can be.
"""

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection may take.

    A body has the longer of `body_s` and its bytes at `body_bytes_per_s`; a response that the peer does not
    read, the longer of `write_s` and its unread bytes at the same rate. `pipeline_max` requests are read
    ahead of the one being answered. A refused request's body is read and thrown away up to
    `discard_bytes_max`, so that the connection can be kept. After a refusal that closes, up to
    `linger_bytes_max` are thrown away for `linger_s`, so that the peer can read why. `chunk_overhead`: raw
    bytes of a chunked body per byte of content, beyond `chunk_slack_bytes`. `stream_buffer_bytes_max`: what
    of a stream may wait for a slow reader. `memo_heads_max` heads of at most `memo_head_bytes_max` are
    remembered (see `memo`).
    """

    headers_s: float = 5.0
    body_s: float = 10.0
    body_bytes_per_s: int = 16 * 1024
    idle_s: float = 75.0
    write_s: float = 30.0
    linger_s: float = 2.0
    handshake_s: float = 5.0
    drain_s: float = 10.0
    sweep_s: float = 0.25
    head_bytes_max: int = 16 * 1024
    fields_max: int = 100
    url_bytes_max: int = 8 * 1024
    request_id_chars_max: int = 128
    pipeline_max: int = 64
    discard_bytes_max: int = 64 * 1024
    linger_bytes_max: int = 4 * 2**20
    chunk_overhead: int = 4
    chunk_slack_bytes: int = 32 * 1024
    stream_buffer_bytes_max: int = 2**20
    failed_keys_per_minute: int = 10
    memo_heads_max: int = 1_024
    memo_head_bytes_max: int = 2 * 1024
