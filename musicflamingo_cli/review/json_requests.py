"""JSON requests: a body of limited size and time, an answer from a thread, and errors with their status codes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from musicflamingo_cli.errors import MusicFlamingoError, TrackError
from musicflamingo_cli.review import edits
from musicflamingo_cli.review.edits import ConflictError

_BODY_BYTES, _BODY_SECONDS = 8 << 20, 15.0

Values = Mapping[str, Any]


class RefusedError(Exception):
    """A request that cannot be answered, with the status code and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def json_endpoint(answer: Callable[[Values], Any]) -> Callable[[Request], Any]:
    """Return the endpoint that calls ``answer`` in a thread with a request's values, and sends what it returns."""

    async def endpoint(request: Request) -> Response:
        try:
            values: dict[str, Any] = dict(request.query_params)
            if request.method == "POST":
                values = await _body_of(request)
            values |= {**request.path_params, "csrf": request.scope.get("csrf", "")}
            return _json(await run_in_threadpool(answer, values))
        except RefusedError as error:
            return _json({"error": str(error)}, error.status)
        except ConflictError as error:
            made = {
                key: error.made.get(key) for key in ("edited_by", "edited_at", "time", "model") if key in error.made
            }
            conflict = {
                "preset": error.preset,
                "theirs": error.theirs,
                "base": edits.base_of(error.theirs),
                "made": made,
            }
            return _json({"error": str(error), "conflict": conflict}, 409)
        except (MusicFlamingoError, TrackError) as error:
            return _json({"error": str(error), "hint": error.hint}, 422)

    return endpoint


def _json(value: Any, status: int = 200) -> Response:
    """An answer in ASCII: a caption may hold half a character, which UTF-8 cannot."""
    return Response(json.dumps(value, allow_nan=False), status, media_type="application/json")


async def _body_of(request: Request) -> dict[str, Any]:
    """Return a request's JSON object. Raises RefusedError for one that is too large, too slow, or is none."""
    pieces, size = [], 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                size += len(piece)
                if size > _BODY_BYTES:
                    raise RefusedError(413, "the request is too large")
                pieces.append(piece)
        value = json.loads(b"".join(pieces))
    except TimeoutError as error:
        raise RefusedError(408, "the request did not end") from error
    except (ValueError, RecursionError, ClientDisconnect) as error:
        raise RefusedError(400, "the request is not JSON") from error
    if not isinstance(value, dict):
        raise RefusedError(400, "the request is not a JSON object")
    return value
