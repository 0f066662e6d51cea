"""Music Flamingo from Python: the same engines, settings, presets and errors as the command line.

README.md shows it in use, and its example runs as a test.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any, overload

from musicflamingo_cli.captioning.captioner import Captioner, open_captioner
from musicflamingo_cli.config import load_settings, prompts_files, typed_settings
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.errors import ConfigError, MusicFlamingoError, SidecarError
from musicflamingo_cli.prompts import Preset, choose, load_presets, validate
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.types import Failure, Load

__all__ = ["Analysis", "AnalysisError", "MusicFlamingoGGUF"]

_QUESTION = "prompt"  # the name of a free question's answer
_MANY = 1000  # what an engine is opened for: it stays


@dataclasses.dataclass(frozen=True, slots=True)
class Analysis:
    """What became of one track.

    ``captions``: preset to text, of those that were answered. ``failures``: why others were not; ``preset`` is empty
    where the whole track failed. ``audio_seconds``: of audio that the model heard; ``seconds``: that it took.
    """

    path: Path
    captions: dict[str, str]
    failures: tuple[Failure, ...]
    audio_seconds: float
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether everything that was asked was answered."""
        return not self.failures


class AnalysisError(MusicFlamingoError):
    """A track, or some of its presets, got no caption; ``analysis`` holds what there is."""

    def __init__(self, analysis: Analysis) -> None:
        first = analysis.failures[0]
        named = f" [{first.preset}]" if first.preset else ""
        more = f" (and {len(analysis.failures) - 1} more)" if len(analysis.failures) > 1 else ""
        super().__init__(f"{analysis.path}{named}: {first.reason}{more}", first.hint)
        self.analysis = analysis

    def __reduce__(self) -> tuple[type[AnalysisError], tuple[Analysis]]:
        """So that it can come back from another process."""
        return AnalysisError, (self.analysis,)


class MusicFlamingoGGUF:
    """A model that is loaded once, at the first question, and asked about as many tracks as you like.

    ``model_name``: `auto`, a quant (`Q6_K`), `tiny`, or the path of a `.gguf` (then ``mmproj``, its projector's).
    ``engine``: `auto`, `native`, `server`, `embedded` or `mtmd-cli`. What is left out is as the settings files have
    it, or `auto`. ``settings``: any other option of the command line by its name, with underscores:
    `temperature=0.0`, `max_seconds=300`, `models_dir="/data/gguf"`, `slots=4`, `prompts=…`. They come before the
    settings files and environment variables, which count here, too.

    Raises ConfigError for a setting that there is not. ModelError and ToolMissingError come with the first question.
    """

    def __init__(
        self,
        model_name: str | None = None,
        *,
        mmproj: str | Path | None = None,
        engine: str | None = None,
        **settings: Any,
    ) -> None:
        given = {"model": model_name, "mmproj": mmproj, "engine": engine, **settings}
        self.settings = load_settings(typed_settings(given, "MusicFlamingoGGUF"))
        self._stack = contextlib.ExitStack()
        self._captioner: Captioner | None = None
        self._opening = threading.RLock()  # an engine is gigabytes: never two, whoever asks first

    def __enter__(self) -> MusicFlamingoGGUF:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the engine and free its memory. A later question starts it again."""
        with self._opening:
            self._captioner = None
            self._stack.close()

    @property
    def presets(self) -> dict[str, str]:
        """The presets in force, by name, with their prompts."""
        return {name: preset.prompt for name, preset in self._known_presets(None).items()}

    @overload
    def analyze(self, path: str | Path, *, save: bool = ...) -> dict[str, str]: ...
    @overload
    def analyze(self, path: str | Path, prompt_type: str, *, save: bool = ...) -> str: ...
    @overload
    def analyze(self, path: str | Path, prompt_type: list[str], *, save: bool = ...) -> dict[str, str]: ...
    @overload
    def analyze(self, path: str | Path, *, prompt: str, save: bool = ...) -> str: ...

    def analyze(
        self,
        path: str | Path,
        prompt_type: str | list[str] | None = None,
        *,
        prompt: str | None = None,
        save: bool = False,
    ) -> str | dict[str, str]:
        """Ask about one audio file.

        Without more, the default presets: a dict of preset to caption. ``prompt_type`` names one preset (then the
        caption alone is returned) or several; ``prompt`` is a question of your own. ``save`` merges preset captions
        into the track's `.INFO` sidecar, too. Captions are cleaned and judged as on the command line.

        Raises AnalysisError where anything that was asked got no caption (its ``analysis`` holds the rest),
        ConfigError for an unknown preset, ModelError and ToolMissingError.
        """
        presets = self._presets_for(Path(path), prompt_type, prompt)
        if save and prompt is not None:
            raise ConfigError("an answer to a free prompt has no key to be saved under", "make it a preset")
        found = self._analyze(self._open().saving(save), Path(path), presets)
        if not found.ok:
            raise AnalysisError(found)
        is_one = prompt is not None or isinstance(prompt_type, str)
        return found.captions[presets[0].name] if is_one else found.captions

    def analyze_many(
        self,
        paths: Iterable[str | Path],
        prompt_type: str | list[str] | None = None,
        *,
        save: bool = False,
        progress: bool = True,
    ) -> Iterator[Analysis]:
        """Ask about many files; an Analysis of each as it is done, which need not be the order of ``paths``.

        A file that fails is an Analysis with failures, not an error. ``paths`` may be endless: only a few more are
        taken than the engine works on at once. Leaving the loop early ends the engine; a later question starts it
        again. ``progress`` shows a tqdm bar, in notebooks, too. With ``save``, of two files with one sidecar the
        second is a failure.

        Raises ConfigError for an unknown preset, ModelError and ToolMissingError before the first track.
        """
        from tqdm.auto import tqdm

        if isinstance(paths, (str, bytes)):
            raise ConfigError("analyze_many takes many paths", "give a list, or use analyze")
        self._presets_for(None, prompt_type, None)  # a misspelt name is told before the model is loaded
        captioner = self._open().saving(save)
        total = len(paths) if isinstance(paths, (list, tuple, set, frozenset)) else None
        sidecars: set[Path] = set()

        def ask(path: Path) -> Analysis:
            try:
                return self._analyze(captioner, path, self._presets_for(path, prompt_type, None))
            except (MusicFlamingoError, OSError, ValueError) as error:
                hint = error.hint if isinstance(error, MusicFlamingoError) else "check the path"
                return _failed(path, "error", str(error), hint)

        def submit(path: Path) -> Future[Analysis]:
            if save and path.name:
                sidecar = Path(os.path.realpath(track_for(path).sidecar))
                if sidecar in sidecars:  # the later one would replace the captions of the first
                    done: Future[Analysis] = Future()
                    done.set_result(_failed(path, "skipped", f"{sidecar.name} is saved by a file before it", ""))
                    return done
                sidecars.add(sidecar)
            return pool.submit(ask, path)

        waiting = map(Path, paths)
        lanes = captioner.engine.lanes
        with (
            ThreadPoolExecutor(lanes + 1, thread_name_prefix="track") as pool,
            tqdm(total=total, unit="track", disable=not progress) as bar,
        ):
            working: set[Future[Analysis]] = set()
            try:
                while True:
                    # One more than lanes: its clip is prepared meanwhile.
                    working |= {submit(path) for path in islice(waiting, lanes + 1 - len(working))}
                    if not working:
                        return
                    done, working = wait(working, return_when=FIRST_COMPLETED)
                    for future in done:
                        bar.update()
                        yield future.result()
            except BaseException:  # Ctrl-C, or nobody wants the rest: end what is in work
                for future in working:
                    future.cancel()
                self.close()
                raise

    def _analyze(self, captioner: Captioner, path: Path, presets: Sequence[Preset]) -> Analysis:
        track = track_for(path)
        try:
            info = read_sidecar(track.sidecar)
        except SidecarError as error:
            if captioner.policy.save:  # it could not be merged into
                return _failed(path, error.kind, str(error), error.hint)
            info = {}
        outcome = captioner.caption(track, presets, info)
        captions = {caption.preset: caption.text for caption in outcome.captions}
        return Analysis(path, captions, outcome.failures, outcome.audio_seconds, outcome.seconds)

    def _open(self) -> Captioner:
        with self._opening:
            if self._captioner is None:
                load = Load(_MANY, len(choose(self._known_presets(None), [])), _MANY)
                opened = open_captioner(self.settings, False, lambda text: warnings.warn(text, stacklevel=2), load)
                self._captioner = self._stack.enter_context(opened)
            return self._captioner

    def _known_presets(self, path: Path | None) -> dict[str, Preset]:
        return load_presets(prompts_files(path, self.settings.prompts))

    def _presets_for(self, path: Path | None, prompt_type: str | list[str] | None, prompt: str | None) -> list[Preset]:
        if prompt is None:
            names = [prompt_type] if isinstance(prompt_type, str) else list(prompt_type or [])
            return choose(self._known_presets(path), names)
        if prompt_type is not None:
            raise ConfigError("prompt and prompt_type exclude each other", "leave one of them out")
        return [validate(Preset(_QUESTION, prompt, min_words=1), Path("--ask"))]


def _failed(path: Path, kind: str, reason: str, hint: str) -> Analysis:
    return Analysis(path, {}, (Failure("", kind, reason, hint),), 0.0, 0.0)
