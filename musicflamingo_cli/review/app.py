"""The requests of the page and their answers: JSON, sound, pictures and the files of the page itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from musicflamingo_cli.errors import MusicFlamingoError
from musicflamingo_cli.review import corrections, edits, replacing
from musicflamingo_cli.review.asks import Asks
from musicflamingo_cli.review.audio import parsed_range, sound_of
from musicflamingo_cli.review.detail import detail, shown_path
from musicflamingo_cli.review.edits import ConflictError, Decision, NothingToApproveError
from musicflamingo_cli.review.history import Done, History
from musicflamingo_cli.review.json_requests import RefusedError, Values, json_endpoint
from musicflamingo_cli.review.library import Entry, Filter, Library, Sort
from musicflamingo_cli.review.pictures import COLUMNS, PEAKS, ROWS, Pictures
from musicflamingo_cli.review.presence import Presence
from musicflamingo_cli.text.cleaning import normalize_text
from musicflamingo_cli.text.t5_tokens import LIMITS, TokenCounter

_LONGEST_CAPTION = 20_000  # characters
_MOST_ROWS = 200
_PREVIEWED = 300  # changes of a preview that are shown in full
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_SHARED = {"shared.css": ("musicflamingo_cli.report", "page.css")}  # what the report's page looks like


@dataclass(frozen=True, slots=True)
class Review:
    """All that a review consists of. ``asks`` is None where the model cannot be asked, in a read-only review."""

    library: Library
    history: History
    counter: TokenCounter
    presence: Presence
    pictures: Pictures
    asks: Asks | None
    is_read_only: bool = False


def make_app(review: Review) -> Starlette:
    """Return the application; a Guard must stand before it."""
    handlers = _Handlers(review)
    reads, changes = handlers.reads(), handlers.changes()
    routes = [Route("/", handlers.page), Route("/static/{name}", handlers.page)]
    routes += [
        Route("/api/tracks/{id:int}/audio", handlers.audio),
        Route("/api/tracks/{id:int}/picture", handlers.picture),
    ]
    routes += [Route(path, json_endpoint(answer), methods=["GET"]) for path, answer in reads.items()]
    for path, answer in handlers.questions().items():
        routes.append(Route(path, json_endpoint(answer), methods=["POST"]))
    for path, answer in changes.items():
        change = _refuse_change if review.is_read_only else answer
        routes.append(Route(path, json_endpoint(change), methods=["POST"]))
    return Starlette(routes=routes)


def _refuse_change(values: Values) -> Any:
    raise RefusedError(403, "this review is read-only")


class _Handlers:
    def __init__(self, review: Review) -> None:
        self._review = review
        self._library = review.library

    # -- the page, sound and pictures ---------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        package, file = _SHARED.get(name, (f"{__package__}.page", name))
        if name not in _SHARED and name not in _page_files():
            return JSONResponse({"error": "no such file"}, 404)
        content = resources.files(package).joinpath(file).read_bytes()
        return Response(content, media_type=_TYPES[Path(name).suffix])

    async def picture(self, request: Request) -> Response:
        try:
            entry = self._entry(request.path_params)
            data = await run_in_threadpool(self._review.pictures.get, entry.number, entry.track.audio)
        except (RefusedError, MusicFlamingoError, OSError, ValueError) as error:
            return JSONResponse({"error": str(error)}, getattr(error, "status", 415))
        return Response(data, media_type="application/octet-stream")

    async def audio(self, request: Request) -> Response:
        try:
            entry = self._entry(request.path_params)
            sound = await run_in_threadpool(
                sound_of, entry.track, self._library.root, self._library.follow_links, "wav" in request.query_params
            )
        except (RefusedError, MusicFlamingoError, OSError, ValueError) as error:
            return JSONResponse({"error": str(error)}, getattr(error, "status", 415))
        headers = {"accept-ranges": "bytes", "content-disposition": "inline"}
        span = parsed_range(request.headers.get("range"), sound.size)
        if span is None:
            return Response(status_code=416, headers={"content-range": f"bytes */{sound.size}"})
        start, end = span
        status = 200
        if "range" in request.headers:
            status, headers["content-range"] = 206, f"bytes {start}-{end - 1}/{sound.size}"
        headers["content-length"] = str(end - start)
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers, media_type=sound.kind)
        return StreamingResponse(sound.read(start, end), status, headers, media_type=sound.kind)

    # -- JSON -----------------------------------------------------------------------------------------------

    def reads(self) -> dict[str, Callable[[Values], Any]]:
        return {
            "/api/session": self._session,
            "/api/order": self._order,
            "/api/rows": self._rows,
            "/api/changes": self._changes,
            "/api/tracks/{id:int}": self._detail,
        }

    def questions(self) -> dict[str, Callable[[Values], Any]]:
        """What is sent as JSON but changes nothing."""
        return {"/api/normalize": self._normalize, "/api/replace/preview": self._preview}

    def changes(self) -> dict[str, Callable[[Values], Any]]:
        return {
            "/api/tracks/{id:int}/edit": self._edit,
            "/api/tracks/{id:int}/approve": self._approve,
            "/api/tracks/{id:int}/correct": self._correct,
            "/api/tracks/{id:int}/exclude": self._exclude,
            "/api/tracks/{id:int}/note": self._note,
            "/api/tracks/{id:int}/ask": self._ask,
            "/api/asks/{ask:int}/take": self._take,
            "/api/asks/{ask:int}/drop": self._drop,
            "/api/replace": self._replace,
            "/api/undo": lambda values: self._moved(self._review.history.undo()),
            "/api/redo": lambda values: self._moved(self._review.history.redo()),
        }

    def _session(self, values: Values) -> Any:
        review = self._review
        return {
            "csrf": values["csrf"],
            "dataset": shown_path(self._library.root),
            "presets": list(self._library.presets),
            "filters": [str(name) for name in Filter],
            "readOnly": review.is_read_only,
            "ask": review.asks.defaults() if review.asks else None,
            "tokensAreEstimated": not review.counter.is_exact,
            "limits": dict(LIMITS),
            "picture": {"peaks": PEAKS, "columns": COLUMNS, "rows": ROWS},
            "user": edits.user_name(),
        }

    def _order(self, values: Values) -> Any:
        self._library.touch()
        try:
            only, sort = Filter(values.get("only") or Filter.ALL), Sort(values.get("sort") or Sort.DOUBT)
        except ValueError as error:
            raise RefusedError(400, str(error)) from error
        revision = self._library.revision
        ids = self._library.select(str(values.get("search") or ""), only, sort)
        return {"ids": ids, "revision": revision, **self._state()}

    def _state(self) -> dict[str, Any]:
        undo, redo = self._review.history.labels
        is_scanning = not self._library.is_complete
        return {"counts": self._library.counts(), "scanning": is_scanning, "undo": undo, "redo": redo}

    def _rows(self, values: Values) -> Any:
        try:
            numbers = [int(number) for number in str(values.get("ids") or "").split(",") if number][:_MOST_ROWS]
        except ValueError as error:
            raise RefusedError(400, "ids are numbers") from error
        return {"rows": [entry.row() for entry in map(self._library.entry, numbers) if entry]}

    def _changes(self, values: Values) -> Any:
        self._library.touch()
        try:
            since, opened = int(values.get("since") or 0), int(values.get("open") or -1)
        except ValueError as error:
            raise RefusedError(400, "since and open are numbers") from error
        entry = self._library.entry(opened)
        elsewhere = ""
        if entry is not None and not self._review.is_read_only:
            elsewhere = self._review.presence.open(entry.track.sidecar)
        changed = self._library.changed_since(since)
        revision = changed[-1].revision if changed else since
        asks = self._review.asks.as_json() if self._review.asks else []
        rows = [entry.row() for entry in changed]
        return {"rows": rows, "revision": revision, "elsewhere": elsewhere, "asks": asks, **self._state()}

    def _detail(self, values: Values) -> Any:
        return detail(self._library, self._entry(values), self._review.counter)

    def _normalize(self, values: Values) -> Any:
        text = normalize_text(str(values.get("text") or "")[:_LONGEST_CAPTION])
        return {"text": text, "tokens": self._review.counter.count(text) if text else 0}

    def _preview(self, values: Values) -> Any:
        rewriting = replacing.Rewriting.of(values)
        numbers = [number for number in values.get("ids") or () if isinstance(number, int)]
        return replacing.preview(self._library, numbers, rewriting, _PREVIEWED)

    def _replace(self, values: Values) -> Any:
        rewriting = replacing.Rewriting.of(values)
        found = replacing.decisions(values.get("items") or (), rewriting)
        return self._moved(self._review.history.apply_all(rewriting.label, found))

    def _edit(self, values: Values) -> Any:
        preset, text = str(values.get("preset") or ""), normalize_text(str(values.get("text") or ""))
        if not text or len(text) > _LONGEST_CAPTION:
            raise RefusedError(422, "a caption cannot be empty" if not text else "the caption is too long")
        self._require_preset(preset)
        return self._apply(values, f"edit {preset}", edits.edit(preset, text, str(values.get("base") or "")))

    def _approve(self, values: Values) -> Any:
        preset, is_approved = str(values.get("preset") or ""), values.get("value", True) is True
        label = f"{'approve' if is_approved else 'withdraw the approval of'} {preset or 'the track'}"
        return self._apply(values, label, edits.approve(_bases(values), is_approved, preset))

    def _correct(self, values: Values) -> Any:
        audio = self._entry(values).track.audio
        return self._apply(values, "correct", corrections.correct(_bases(values), audio, self._library.presets))

    def _exclude(self, values: Values) -> Any:
        is_excluded = values.get("value", True) is True
        return self._apply(values, "exclude" if is_excluded else "include", edits.exclude(is_excluded))

    def _note(self, values: Values) -> Any:
        text = " ".join(str(values.get("text") or "").split())[:_LONGEST_CAPTION]
        return self._apply(values, "note", edits.note(text, str(values.get("base") or "")))

    def _ask(self, values: Values) -> Any:
        name = str(values.get("preset") or "")
        self._require_preset(name)
        return self._asks().add(self._entry(values), name, values).as_json()

    def _take(self, values: Values) -> Any:
        ask = self._asks().get(int(values["ask"]))
        if ask is None or ask.answer is None:
            raise RefusedError(404, "there is no such answer")
        name = ask.preset.name
        decide = edits.take(name, str(values.get("base") or ""), ask.answer.keys)
        result = self._apply({"id": ask.entry.number}, f"take the new {name}", decide)
        self._asks().drop(ask)
        return result

    def _drop(self, values: Values) -> Any:
        if ask := self._asks().get(int(values["ask"])):
            self._asks().drop(ask)
        return {}

    def _asks(self) -> Asks:
        if self._review.asks is None:
            raise RefusedError(403, "this review cannot ask the model")
        return self._review.asks

    def _apply(self, values: Values, label: str, decide: Decision) -> Any:
        """Change a track; return it as it is then. A conflict is answered with both versions."""
        entry = self._entry(values)
        try:
            self._review.history.apply(f"{label}: {entry.row()['name']}", entry, decide)
        except NothingToApproveError as error:
            raise RefusedError(422, "there is no caption to approve") from error
        except ConflictError:
            self._library.refresh(entry)
            raise
        return {"track": detail(self._library, entry, self._review.counter), **self._state()}

    def _moved(self, done: Done) -> Any:
        return {"label": done.label, "changed": done.changed, "conflicts": done.conflicts, **self._state()}

    def _entry(self, values: Values) -> Entry:
        if (entry := self._library.entry(int(values.get("id", -1)))) is None:
            raise RefusedError(404, "there is no such track")
        return entry

    def _require_preset(self, name: str) -> None:
        from musicflamingo_cli.prompts import free_question

        free_question("any", name)  # for its check of the name


def _bases(values: Values) -> dict[str, str]:
    """Return what the captions that the page showed are identified by."""
    bases = values.get("bases")
    return {str(key): str(value) for key, value in bases.items()} if isinstance(bases, dict) else {}


def _page_files() -> frozenset[str]:
    return frozenset(each.name for each in resources.files(f"{__package__}.page").iterdir() if "." in each.name[1:])
