"""The server: loopback only, few connections, each with a time limit; until Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any

from musicflamingo_cli.errors import ConfigError, ToolMissingError
from musicflamingo_cli.review.security import App

logger = logging.getLogger(__name__)

MOST_CONNECTIONS = 200
_REQUEST_SECONDS = 10.0  # for a request's head to arrive
_HEAD_BYTES = 32 << 10
_INSTALL = "pip install 'musicflamingo[review]'"


def require_packages() -> None:
    """Raise ToolMissingError where the packages of the extra `review` are not installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ToolMissingError(
            f"the review needs the package {error.name}, which is not installed", _INSTALL
        ) from error


@contextlib.contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """Listen on 127.0.0.1, at a free port where ``port`` is 0. Raises ConfigError where the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with contextlib.closing(listener):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"port {port} cannot be used: {error.strerror}", "choose another --port, or none for a free one"
            ) from error
        listener.listen(128)
        yield listener


def serve(app: App, listener: socket.socket) -> None:
    """Serve ``app`` until Ctrl-C or SIGTERM, which raises KeyboardInterrupt afterwards."""
    import uvicorn

    config = uvicorn.Config(
        app,
        http=_protocol(),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=_HEAD_BYTES,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _protocol() -> Any:
    """Return uvicorn's protocol with limits that it lacks: on connections, and on the time until a request is there."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    oldest: dict[Any, None] = {}

    class LimitedProtocol(H11Protocol):
        """A connection. Where there are too many, the oldest one without a request in progress is closed."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._deadline: Any = None
            self._expect_request()
            oldest[self] = None
            if len(oldest) > MOST_CONNECTIONS:
                victim = next((each for each in oldest if each._is_idle()), self)
                del oldest[victim]
                victim.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect_nothing()
            oldest.pop(self, None)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            was = self.cycle
            super().data_received(data)
            if self.cycle is not was:  # the head of a request is complete
                self._expect_nothing()
            elif self._is_idle() and self._deadline is None:  # a later request begins
                self._expect_request()

        def _expect_request(self) -> None:
            self._deadline = self.loop.call_later(_REQUEST_SECONDS, self.transport.abort)

        def _expect_nothing(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _is_idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

    return LimitedProtocol
