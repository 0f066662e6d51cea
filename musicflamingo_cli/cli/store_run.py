"""A batch over datasets in object stores, as a person watches it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from musicflamingo_cli.captioning.batch import count
from musicflamingo_cli.captioning.captioner import open_captioner
from musicflamingo_cli.choices import Wanted
from musicflamingo_cli.cli.console import Console
from musicflamingo_cli.cli.outcomes import announce, outcome_json, summary_lines
from musicflamingo_cli.config import Settings
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.models.resolve import resolve_model
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.staleness import CaptionSettings, caption_settings
from musicflamingo_cli.stores.batch import StoreBatch, find_stored
from musicflamingo_cli.stores.store import Store, open_store
from musicflamingo_cli.system.disk import free_bytes
from musicflamingo_cli.types import COMPLETE, Outcome, Skipped, Summary, Workload

_MANY = 1000  # tracks that an engine is opened for: a store is listed while it works
_MOST_SPACE = 4 << 30  # bytes of audio in the temporary folder


class StoreRun:
    """One run over datasets in stores. ``urls`` as on the command line."""

    def __init__(
        self,
        console: Console,
        settings: Settings,
        urls: Sequence[str],
        presets: Sequence[Preset],
        selection: Selection,
        single_writer: bool,
        keep_going: bool = False,
    ) -> None:
        """Open the stores. Raises ToolMissingError, ConfigError."""
        self._console = console
        self._settings = settings
        self._stores = [open_store(url, single_writer) for url in urls]
        self._presets = presets
        self._selection = selection
        self._keep_going = keep_going
        self._summary = Summary()
        self._started = time.monotonic()

    def start(self, dry_run: bool) -> Summary:
        """Caption what is selected (or, with ``dry_run``, list it) and return the counts."""
        if dry_run:
            for store, folder in self._stores:
                self._list(store, folder)
            return self._summary
        model = resolve_model(self._settings)
        wanted = self._selection.wanted
        known = CaptionSettings(is_tiny=model.is_tiny)
        if wanted == Wanted.OUTDATED:
            known = caption_settings(self._settings, model)
        selection = replace(self._selection, settings=known)
        workload = Workload(_MANY, len(self._presets), at_once=_MANY)
        space = min(_MOST_SPACE, free_bytes(Path(tempfile.gettempdir())) // 4)
        with open_captioner(
            self._settings, workload, model, wanted == Wanted.ALL, replace_edited=selection.edited
        ) as captioner:
            announce(self._console, captioner)
            try:
                for store, folder in self._stores:
                    batch = StoreBatch(
                        store, captioner, self._presets, selection, space=space, keep_going=self._keep_going
                    )
                    if left := batch.run(folder, self._settled(store, captioner.engine.name, model.name)):
                        self._console.info(f"{left} tracks are in progress in other processes, which will finish them")
            finally:
                for line in summary_lines(self._summary, time.monotonic() - self._started):
                    self._console.info(line)
        return self._summary

    def _settled(self, store: Store, engine: str, model: str) -> Callable[[Outcome], None]:
        def done(outcome: Outcome) -> None:
            count(self._summary, outcome)
            self._show(store, outcome, engine, model)

        return done

    def _show(self, store: Store, outcome: Outcome, engine: str, model: str) -> None:
        url = _url(store, outcome.track.audio)
        shown = outcome_json(outcome, engine, model)
        shown |= {"track": url, "sidecar": _url(store, outcome.track.sidecar) if shown["sidecar"] else None}
        self._console.json(shown)
        if outcome.skipped == COMPLETE:
            return
        if outcome.skipped:
            self._console.info(f"skipped {url}: {outcome.skipped}")
        for note in outcome.notes:
            self._console.info(f"{url}: {note}")
        for failure in () if outcome.was_interrupted else outcome.failures:
            self._console.warn(f"{url}{f' [{failure.preset}]' if failure.preset else ''}: {failure.reason}")
        if outcome.captions and not outcome.failures:
            self._console.info(f"done {url} ({outcome.seconds:.1f} s)")
        if not self._selection.save:
            for caption in outcome.captions:
                self._console.data(f"{url}: {caption.text}")

    def _list(self, store: Store, folder: str) -> None:
        for item in find_stored(store, folder, self._selection):
            if isinstance(item, Skipped):
                self._console.info(f"skipped {_url(store, item.path)}: {item.reason}")
                continue
            state = "has a sidecar" if item.has_sidecar else "no captions"
            self._console.data(f"{_url(store, item.track.audio)}: {state}")
            self._console.json({"track": _url(store, item.track.audio), "has_sidecar": item.has_sidecar})


def _url(store: Store, path: Path) -> str:
    return f"{store.scheme}:/{path}"
