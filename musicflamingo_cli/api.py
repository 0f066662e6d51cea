"""Music Flamingo from Python: the same engines, settings, presets and errors as the command line.

docs/python.md shows it in use; the example in README.md runs as a test.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, overload

from musicflamingo_cli.captioning.captioner import Captioner, open_captioner
from musicflamingo_cli.captioning.conversation import Chat
from musicflamingo_cli.captioning.worker_pool import WorkerPool
from musicflamingo_cli.choices import Attention, EngineName
from musicflamingo_cli.config import load_settings, typed_settings
from musicflamingo_cli.dataset.tracks import SidecarOwners, track_for
from musicflamingo_cli.errors import ConfigError, FailureKind, MusicFlamingoError, SidecarError
from musicflamingo_cli.prompts import Preset, choose, free_question, load_presets, prompts_files
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.types import Failure, Skipped, Workload

__all__ = ["Analysis", "AnalysisError", "Chat", "MusicFlamingoGGUF", "MusicFlamingoTransformers"]

logger = logging.getLogger(__name__)
_QUESTION = "prompt"  # the name of a free question's answer
_MANY = 1000  # tracks that an engine is opened for: how many will come is not known


@dataclasses.dataclass(frozen=True, slots=True)
class Analysis:
    """The result for one track.

    ``captions``: preset to text, of those that were answered. ``failures``: why others were not; ``preset`` is empty
    where the whole track failed. ``audio_seconds``: of audio that the model got; ``seconds``: wall time.
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
        """Pickle with the analysis, so that the error can cross a process boundary."""
        return AnalysisError, (self.analysis,)


class MusicFlamingo:
    """A model that is loaded once, at the first question, and answers about as many tracks as you like.

    ``settings``: any option of the command line by its name, with underscores: `temperature=0.0`, `max_seconds=300`,
    `models_dir="/data/gguf"`, `slots=4`, `prompts=…`. They override the settings files and environment variables, which
    apply here, too. Warnings are logged to the logger `musicflamingo_cli`.

    Raises ConfigError for an unknown setting or a wrong value. ModelError and ToolMissingError are raised by the first
    question.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = load_settings(typed_settings(settings, type(self).__name__))
        self._stack = contextlib.ExitStack()
        self._captioner: Captioner | None = None
        self._opening = threading.RLock()  # an engine takes gigabytes: never open two

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the engine and free its memory. A later question opens it again."""
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
        found = self._analyze(self._open(len(presets)), Path(path), presets, save)
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
        """Ask about many files; yield an Analysis of each as it is done, which need not be the order of ``paths``.

        A file that fails is an Analysis with failures, not an error. ``paths`` may be endless: only a few more than the
        engine has slots are taken at a time. Leaving the loop early closes the engine; a later question opens it again.
        ``progress`` shows a tqdm bar, in notebooks, too. With ``save``, of two files with one sidecar the second is a
        failure.

        Raises ConfigError for an unknown preset, ModelError and ToolMissingError before the first track.
        """
        from tqdm.auto import tqdm

        if isinstance(paths, (str, bytes)):
            raise ConfigError("analyze_many takes many paths", "give a list, or use analyze")
        captioner = self._open(len(self._presets_for_all(paths, prompt_type)))
        total = len(paths) if isinstance(paths, (list, tuple, set, frozenset)) else None
        owners = SidecarOwners()

        def items() -> Iterator[tuple[Path, Skipped | None]]:
            for path in map(Path, paths):  # claimed in the caller's order, not in that of the threads
                yield path, owners.claim(track_for(path)) if save and path.name else None

        def ask(item: tuple[Path, Skipped | None]) -> Analysis:
            path, skipped = item
            if skipped:
                return _failed(path, FailureKind.SKIPPED, skipped.reason, "")
            return self._analyze_or_fail(captioner, path, prompt_type, save)

        with (
            WorkerPool(ask, lambda: captioner.slots) as pool,
            tqdm(total=total, unit="track", disable=not progress) as bar,
        ):
            try:
                for analysis in pool.results(items()):
                    bar.update()
                    yield analysis
            except BaseException:  # Ctrl-C, or the caller left the loop: end what is in progress
                self.close()
                raise

    def chat(self, paths: str | Path | Sequence[str | Path] = ()) -> Chat:
        """Open a conversation about one audio file, about several that the model gets together, or in words only.

        Each question follows up on those before it, and the audio is processed once for all of them. Use it in a
        `with` block, or close it. Raises ConfigError for an engine that cannot hold a conversation, AudioError,
        ModelError and ToolMissingError.
        """
        files = [paths] if isinstance(paths, (str, Path)) else paths
        return Chat(self._open(1, is_conversation=True), [Path(path) for path in files])

    def _analyze_or_fail(
        self, captioner: Captioner, path: Path, prompt_type: str | list[str] | None, save: bool
    ) -> Analysis:
        """Ask about one of many files, whatever its path may be; what is wrong with it is a failure, not an error."""
        try:
            return self._analyze(captioner, path, self._presets_for(path, prompt_type, None), save)
        except (MusicFlamingoError, OSError, ValueError) as error:
            hint = error.hint if isinstance(error, MusicFlamingoError) else "check the path"
            return _failed(path, FailureKind.OTHER, str(error), hint)

    def _analyze(self, captioner: Captioner, path: Path, presets: Sequence[Preset], save: bool) -> Analysis:
        track = track_for(path)
        try:
            info = read_sidecar(track.sidecar)
        except SidecarError as error:
            if save:  # it could not be merged into
                return _failed(path, error.kind, str(error), error.hint)
            info = {}
        outcome = captioner.caption(track, presets, info, save=save)
        captions = {caption.preset: caption.text for caption in outcome.captions}
        return Analysis(
            path=path,
            captions=captions,
            failures=outcome.failures,
            audio_seconds=outcome.audio_seconds,
            seconds=outcome.seconds,
        )

    def _presets_for_all(self, paths: Iterable[str | Path], prompt_type: str | list[str] | None) -> list[Preset]:
        """Return the presets to ask about many files: a misspelt name is an error before the model is loaded.

        One that only the first file's dataset has may be missing elsewhere, which is then a failure of those files.
        """
        try:
            return self._presets_for(None, prompt_type, None)
        except ConfigError:
            first = next(iter(paths)) if isinstance(paths, Collection) and len(paths) else None
            if not isinstance(first, (str, Path)):
                raise
            with contextlib.suppress(ConfigError, OSError, ValueError):
                return self._presets_for(Path(first), prompt_type, None)
            raise

    def _open(self, prompts: int, is_conversation: bool = False) -> Captioner:
        """Return the captioner, opened for questions of about so many prompts each."""
        with self._opening:
            if self._captioner is None:
                workload = Workload(_MANY, prompts, at_once=_MANY, is_conversation=is_conversation)
                self._captioner = self._stack.enter_context(open_captioner(self.settings, workload))
            return self._captioner

    def _known_presets(self, path: Path | None) -> dict[str, Preset]:
        return load_presets(prompts_files(path, self.settings.prompts))

    def _presets_for(self, path: Path | None, prompt_type: str | list[str] | None, prompt: str | None) -> list[Preset]:
        if prompt is None:
            names = [prompt_type] if isinstance(prompt_type, str) else list(prompt_type or [])
            return choose(self._known_presets(path), names)
        if prompt_type is not None:
            raise ConfigError("prompt and prompt_type exclude each other", "leave one of them out")
        return [free_question(prompt, _QUESTION)]


class MusicFlamingoGGUF(MusicFlamingo):
    """Music Flamingo under llama.cpp.

    ``model_name``: `auto`, a quant (`Q6_K`), `tiny`, or the path of a `.gguf` (then ``mmproj``, its projector's).
    ``engine``: `auto`, `native`, `server`, `embedded` or `mtmd-cli`. See MusicFlamingo for ``settings``.
    """

    def __init__(
        self,
        model_name: str | None = None,
        *,
        mmproj: str | Path | None = None,
        engine: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model=model_name, mmproj=mmproj, engine=engine, **settings)


class MusicFlamingoTransformers(MusicFlamingo):
    """A checkpoint of Music Flamingo, Audio Flamingo 3 or Audio Flamingo Next in transformers.

    ``model_id``: its name on the hub, once `musicflamingo models pull` has downloaded it; `auto`, the best that is
    installed; `tiny`; or its folder. ``use_flash_attention``: where flash-attention is installed, else torch's own
    attention, with a warning; ``attention="flash_attention_2"`` insists on it. See MusicFlamingo for ``settings``.
    """

    def __init__(self, model_id: str = "auto", use_flash_attention: bool = False, **settings: Any) -> None:
        if use_flash_attention:
            settings.setdefault("attention", _flash_attention())
        super().__init__(model=model_id, engine=EngineName.TRANSFORMERS.value, **settings)


def _flash_attention() -> str:
    """flash_attention_2 where its package is installed; it computes the same faster, so that going on is right."""
    if importlib.util.find_spec("flash_attn") is not None:
        return Attention.FLASH_ATTENTION_2.value
    logger.warning("flash-attention is not installed; attention is computed by torch (pip install flash-attn)")
    return Attention.SDPA.value


def _failed(path: Path, kind: FailureKind, reason: str, hint: str) -> Analysis:
    failure = Failure(preset="", kind=kind, reason=reason, hint=hint)
    return Analysis(path=path, captions={}, failures=(failure,), audio_seconds=0.0, seconds=0.0)
