"""Request heads known by their bytes.

A client that keeps its connection sends the same head again and again. One that was parsed, judged and
accepted before means the same when it comes again, byte for byte, at the start of a request; so it is
looked up instead of being parsed. Only heads with a plain Content-Length and nothing of their own (no
trace, no request id) are kept; expiry, rate and concurrency of the key are checked each time all the same.
Two generations bound the memory, and a flood of new heads pushes out what is used only half as often. All
is forgotten with each configuration.
"""

from steersman.dataplane.gateway.http.request import Head


class Memo:
    """At most twice `heads_max` heads."""

    __slots__ = ("_heads_max", "_old", "_young")

    def __init__(self, heads_max: int) -> None:
        self._heads_max = heads_max
        self._young: dict[bytes, Head] = {}
        self._old: dict[bytes, Head] = {}

    def get(self, raw: bytes) -> Head | None:
        """The judged head of these bytes (with the blank line), if it is known."""
        head = self._young.get(raw)
        if head is None:
            head = self._old.get(raw)
            if head is not None:
                self.put(raw, head)
        return head

    def put(self, raw: bytes, head: Head) -> None:
        """Remember."""
        if len(self._young) >= self._heads_max:
            self._old, self._young = self._young, {}
        self._young[raw] = head
