"""The gate before every route: whoever has no token learns nothing, not even which routes there are.

Theory of operation. It wraps the whole application, so that no route, present or future, can be reached past
it, and a request is refused before any of its body is read. Loopback is not trust: other users and web pages
reach it too. So the `Host` header must name this machine (a page that rebinds its own name to 127.0.0.1 sends
its own name), a request that a web page started is refused by its `Origin`, and the token is compared in
constant time. The one open route says that the server lives, and nothing else.
"""

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from steersman.app.http.errors import error_answer
from steersman.guard.token import same_token

OPEN_ROUTES = frozenset({("GET", "/livez")})
HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
BEARER = "Bearer "


class Gate:
    """An ASGI application before another."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer why not."""
        if scope["type"] != ScopeType.HTTP:  # websockets and life-cycle messages: there are none
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
            return
        status, body = refusal
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _refusal(self, scope: HTTPScope) -> tuple[int, bytes] | None:
        headers = scope["headers"]
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if len(hosts) != 1 or _without_port(hosts[0]) not in HOSTS:
            return 403, error_answer("wrong-host", "this API answers to the names of this machine only")
        if any(name == b"origin" for name, _ in headers):
            return 403, error_answer("cross-origin", "this API is not for web pages")
        if (scope["method"], scope["path"]) in OPEN_ROUTES:
            return None
        given = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
        if (
            len(given) == 1
            and given[0].startswith(BEARER)
            and same_token(given[0][len(BEARER) :], self._token)
        ):
            return None
        hint = "send the header `Authorization: Bearer <the token in the home's file `token`>`"
        return 401, error_answer("access", "no token, or not the right one", hint)


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() and not name.endswith(":") else host.lower()
