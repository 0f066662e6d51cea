"""Who may talk to the review's server: one browser of the person who started it, and no page but its own.

The rules are those of Jupyter: a one-time token in the printed URL is exchanged for a cookie. Host and Origin are
compared with what the server is reached by (DNS rebinding, foreign pages); a write also carries a token that only the
page can read (CSRF).
"""

from __future__ import annotations

import hmac
import logging
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any
from urllib.parse import parse_qs

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ENTRANCE = "/enter"
CSRF_HEADER = "x-review-csrf"
_SAFE = ("GET", "HEAD")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_MOST_SESSIONS = 20


class Access:
    """The tokens and sessions of one server at ``port``.

    A token is valid once; ``on_entered`` is then called with the URL for another browser.
    """

    def __init__(self, port: int, on_entered: Callable[[str], None] = lambda url: None) -> None:
        self.port = port
        self.cookie = f"musicflamingo-review-{port}"  # cookies do not distinguish ports
        self.hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))
        self.origins = frozenset(f"http://{host}" for host in self.hosts)
        self._on_entered = on_entered
        self._token = secrets.token_urlsafe(32)
        self._sessions: dict[str, str] = {}  # cookie to CSRF token
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The URL that lets one browser in, once."""
        return f"http://127.0.0.1:{self.port}{ENTRANCE}?token={self._token}"

    def enter(self, token: str) -> str | None:
        """Exchange the token for a new session's cookie; None where it is wrong or was used already."""
        with self._lock:
            if not hmac.compare_digest(token.encode(), self._token.encode()):
                return None
            self._token = secrets.token_urlsafe(32)
            while len(self._sessions) >= _MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            session = secrets.token_urlsafe(32)
            self._sessions[session] = secrets.token_urlsafe(32)
        self._on_entered(self.url)
        return session

    def csrf_of(self, cookies: Iterable[str]) -> str | None:
        """Return the CSRF token of the session that a request's cookies name; None where they name none."""
        for found in self._values_in(cookies):
            for session, csrf in list(self._sessions.items()):
                if hmac.compare_digest(found.encode("utf-8", "replace"), session.encode()):
                    return csrf
        return None

    def _values_in(self, cookies: Iterable[str]) -> Iterator[str]:
        """The values of our cookie. Not by http.cookies, which stops at the first odd one of another local program."""
        for text in cookies:
            for pair in text.split(";"):
                name, _, value = pair.partition("=")
                if name.strip() == self.cookie:
                    yield value.strip()


class Guard:
    """ASGI middleware that lets only the page through to ``app``; its CSRF token is put into the scope as `csrf`."""

    def __init__(self, app: App, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket
            return
        headers = _Headers(scope)
        if reason := self._foreign(scope, headers):
            await _refuse(send, 403, reason)
        elif scope["path"] == ENTRANCE:
            await self._enter(scope, send)
        elif (csrf := self._access.csrf_of(headers.all("cookie"))) is None:
            await _refuse(send, 401, "open the URL that `musicflamingo review` printed; each URL opens one browser")
        elif reason := _not_from_page(scope, headers, csrf):
            await _refuse(send, 403, reason)
        else:
            scope["csrf"] = csrf
            await self._app(scope, receive, _with_headers(send))

    def _foreign(self, scope: Scope, headers: _Headers) -> str:
        """Return why a request may come from another page or by another name; empty where it does not."""
        hosts, origins = headers.all("host"), headers.all("origin")
        if len(hosts) != 1 or hosts[0].lower() not in self._access.hosts:
            return "this server is reached as 127.0.0.1, localhost or [::1], with its own port"
        if any(origin not in self._access.origins for origin in origins):
            return "requests of other pages are refused"
        if not origins and scope["method"] not in _SAFE:
            return "a write needs an Origin"
        if scope["path"] != ENTRANCE and headers.first("sec-fetch-site") not in ("", "same-origin", "none"):
            return "requests of other pages are refused"
        return ""

    async def _enter(self, scope: Scope, send: Send) -> None:
        token = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        session = self._access.enter(token) if scope["method"] == "GET" else None
        if session is None:
            await _refuse(send, 403, "this URL is not valid, or was used already; see the terminal for the newest one")
            return
        # A page that moves on by itself, not a redirect: after a click in another page (a terminal in the browser) a
        # strict cookie is not sent with a redirect.
        page = (
            '<!doctype html><meta charset="utf-8"><title>Review</title><link rel="icon" href="/static/icon.svg">'
            '<meta http-equiv="refresh" content="0;url=/">'
        )
        cookie = f"{self._access.cookie}={session}; Path=/; HttpOnly; SameSite=Strict"
        await _answer(send, 200, page, {"set-cookie": cookie, "content-type": "text/html; charset=utf-8"})


class _Headers:
    """A request's headers; a name may come several times."""

    def __init__(self, scope: Scope) -> None:
        self._all = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]

    def all(self, name: str) -> list[str]:
        """Return all values of a header."""
        return [value for each, value in self._all if each == name]

    def first(self, name: str) -> str:
        """Return a header's first value; empty where it is missing."""
        return next(iter(self.all(name)), "")


def _not_from_page(scope: Scope, headers: _Headers, csrf: str) -> str:
    """Return why a write does not come from the session's own page; empty where it does, and for reads."""
    if scope["method"] in _SAFE:
        return ""
    if not hmac.compare_digest(headers.first(CSRF_HEADER).encode(), csrf.encode()):
        return "the page is outdated: reload it"
    if headers.first("content-type").partition(";")[0].strip() != "application/json":
        return "a write must be JSON"
    return ""


def _with_headers(send: Send) -> Send:
    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message.get("headers", [])}
            more = [(name.encode(), value.encode()) for name, value in _HEADERS.items() if name.encode() not in given]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return wrapped


async def _refuse(send: Send, status: int, reason: str) -> None:
    await _answer(send, status, f"{reason}\n", {"content-type": "text/plain; charset=utf-8"})


async def _answer(send: Send, status: int, text: str, headers: dict[str, str]) -> None:
    body = text.encode()
    start = [(name.encode(), value.encode()) for name, value in headers.items()]
    start += [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    wrapped = _with_headers(send)
    await wrapped({"type": "http.response.start", "status": status, "headers": start})
    await wrapped({"type": "http.response.body", "body": body})
