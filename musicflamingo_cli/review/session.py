"""One review from its start to its end: the dataset is read in the background while the page is open."""

from __future__ import annotations

import contextlib
import html
import logging
import os
import socket
import tempfile
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from musicflamingo_cli.review.app import Review, make_app
from musicflamingo_cli.review.asks import Asks
from musicflamingo_cli.review.history import History
from musicflamingo_cli.review.library import Library, start
from musicflamingo_cli.review.pictures import Pictures
from musicflamingo_cli.review.presence import Presence
from musicflamingo_cli.review.security import Access, App, Guard
from musicflamingo_cli.review.server import serve
from musicflamingo_cli.system.temporary import folder_prefix
from musicflamingo_cli.text.t5_tokens import TokenCounter

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def open_review(
    root: Path, presets: Sequence[str], counter: TokenCounter, asks: Asks | None, follow_links: bool = False
) -> Iterator[Review]:
    """Open a review of the dataset at ``root``; without ``asks`` it is read-only. Reading begins in the background."""
    library = Library(root, presets, follow_links)
    review = Review(
        library=library,
        history=History(library),
        counter=counter,
        presence=Presence(),
        pictures=Pictures(),
        asks=asks,
        is_read_only=asks is None,
    )
    threads = [start(library.scan, "reading the dataset"), start(library.watch, "watching the dataset")]
    try:
        yield review
    finally:
        library.stop()
        review.presence.close()
        if asks is not None:
            asks.stop()
        for thread in threads:
            thread.join(timeout=5)


def guarded(review: Review, port: int, show: Callable[[str], None] = lambda url: None) -> tuple[App, Access]:
    """Return the application behind its guard, and who may enter; ``show`` gets each later URL to enter by."""
    access = Access(port, on_entered=lambda url: show(f"for another browser: {url}"))
    return Guard(make_app(review), access), access


def run(review: Review, listener: socket.socket, show: Callable[[str], None], open_browser: bool = False) -> None:
    """Serve a review until Ctrl-C. ``show`` gets the URL to open."""
    app, access = guarded(review, listener.getsockname()[1], show)
    show(access.url)
    with contextlib.ExitStack() as stack:
        if open_browser:
            webbrowser.open(stack.enter_context(_doorway(access.url)).as_uri())
        with contextlib.suppress(KeyboardInterrupt):
            serve(app, listener)


@contextlib.contextmanager
def _doorway(url: str) -> Iterator[Path]:
    """A private file that leads to the URL: as an argument of the browser, other users could read the token."""
    with tempfile.TemporaryDirectory(prefix=folder_prefix(), ignore_cleanup_errors=True) as folder:
        page = Path(folder) / "review.html"
        descriptor = os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={html.escape(url)}">')
        yield page
