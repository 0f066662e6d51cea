"""One HTTP request with limits: on the time for all of it, however slowly a server sends, and on the answer's size."""

from __future__ import annotations

import ipaddress
import queue
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_LARGEST = 16 << 20  # bytes of an answer
_CONNECT_SECONDS = 20.0


class RequestError(Exception):
    """There is no whole answer; the text says why. ``is_permanent``: asking again would not help."""

    def __init__(self, reason: str, is_permanent: bool = False) -> None:
        super().__init__(reason)
        self.is_permanent = is_permanent


class RequestTimeout(RequestError):
    """The whole answer did not arrive in time."""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An answer, whatever its status; the names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def is_loopback(url: str) -> bool:
    """Return whether a URL's host is this machine, by its name or address alone."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def send(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    seconds: float,
    *,
    verify: bool = True,
    on_event_part: Callable[[bytes], None] | None = None,
) -> HttpReply:
    """Send a request and return the answer; redirects are not followed. Raises RequestError.

    The limit of ``seconds`` holds for all of it: libraries limit each read, which a server that sends a byte now and
    then never exceeds. ``verify``: whether the certificate must be valid. ``on_event_part`` gets each part of a stream
    of server-sent events as it arrives, in another thread; what it raises ends the request and is passed on.
    """
    import httpx2

    context = ssl.create_default_context()
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    timeout = httpx2.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
    try:  # a proxy is for elsewhere
        client = httpx2.Client(verify=context, timeout=timeout, trust_env=not is_loopback(url))
    except (ImportError, ValueError, httpx2.InvalidURL) as error:  # SOCKS needs a package; a proxy's URL may be wrong
        reason = "SOCKS is not supported" if isinstance(error, ImportError) else type(error).__name__
        raise RequestError(f"the proxy of the environment cannot be used ({reason})", is_permanent=True) from error
    result: queue.SimpleQueue[HttpReply | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            result.put(_send(client, method, url, dict(headers), body, on_event_part))
        except Exception as error:
            result.put(error)

    threading.Thread(target=work, daemon=True, name="http").start()
    try:
        answer = result.get(timeout=seconds)
    except queue.Empty:
        raise RequestTimeout(f"no whole answer within {seconds:.0f} s") from None
    finally:
        client.close()  # and with it the connection of a request that was given up
    if isinstance(answer, HttpReply):
        return answer
    if isinstance(answer, httpx2.TimeoutException):
        raise RequestTimeout(f"no answer within {seconds:.0f} s ({type(answer).__name__})") from answer
    if isinstance(answer, (httpx2.InvalidURL, httpx2.UnsupportedProtocol, UnicodeError)):  # the last: no host's name
        raise RequestError(str(answer), is_permanent=True) from answer
    if isinstance(answer, (httpx2.HTTPError, OSError)):
        is_certificate = "CERTIFICATE_VERIFY_FAILED" in str(answer)
        raise RequestError(str(answer) or type(answer).__name__, is_permanent=is_certificate) from answer
    raise answer


def _send(
    client: Any,
    method: str,
    url: str,
    headers: dict[str, str],
    body: bytes | None,
    on_event_part: Callable[[bytes], None] | None,
) -> HttpReply:
    with client.stream(method, url, headers=headers, content=body) as response:
        kind = response.headers.get("content-type", "")
        has_events = response.status_code == 200 and kind.startswith("text/event-stream")
        parts, size = [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > _LARGEST:
                raise RequestError(f"the answer is larger than {_LARGEST >> 20} MiB", is_permanent=True)
            if has_events and on_event_part:
                on_event_part(part)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return HttpReply(response.status_code, headers, b"".join(parts))
