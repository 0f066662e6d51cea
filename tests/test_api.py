"""The Python API, on the real binary and over an engine double."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import musicflamingo_cli
from musicflamingo_cli import AnalysisError, MusicFlamingoGGUF, api, find_tracks, merge_sidecar, normalize_text
from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.config import Settings
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer
from musicflamingo_cli.errors import ConfigError, FailureKind, ModelError
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.types import Clip, Failure, Prompt, Sampling, Workload
from tests.conftest import MakeWav
from tests.fakes.engines import GOOD, REAL_PAIR, ScriptedEngine

FIVE = ["full", "technical", "genre_mood", "instrumentation", "structure"]


# -- on the real thing ---------------------------------------------------------------------------------


@pytest.fixture
def real(random_settings: Settings, tmp_path: Path) -> Iterator[MusicFlamingoGGUF]:
    """The test pair behind a real server; short answers."""
    prompts = tmp_path / "prompts.yaml"
    limits = "".join(f"  {name}: {{prompt: 'Say {name}.', max_tokens: 12, default: true}}\n" for name in FIVE)
    prompts.write_text(f"presets:\n{limits}")
    with MusicFlamingoGGUF(
        "F32",
        models_dir=random_settings.models_dir,
        llama_dir=random_settings.llama_dir,
        prompts=prompts,
        temperature=0.0,
        threads=1,
    ) as flamingo:
        yield flamingo


@pytest.mark.real
def test_a_track_is_analyzed(real: MusicFlamingoGGUF, make_wav: MakeWav) -> None:
    captions = real.analyze(make_wav(seconds=2))
    assert list(captions) == FIVE
    assert all(len(text.split()) >= 3 for text in captions.values())
    assert real.analyze(make_wav(seconds=2), prompt_type="full") == captions["full"]
    assert real.analyze(make_wav(seconds=2), ["full", "structure"]) == {k: captions[k] for k in ("full", "structure")}
    answer = real.analyze(str(make_wav(seconds=2)), prompt="What is this?")
    assert isinstance(answer, str)
    assert answer


@pytest.mark.real
def test_many_tracks_are_analyzed_and_saved(
    real: MusicFlamingoGGUF, make_wav: MakeWav, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = [make_wav(f"{n}.wav", seconds=2 + n / 10, hertz=200 + 50 * n) for n in range(4)]
    (paths[0].parent / "broken.wav").write_text("no sound")
    found = {a.path.name: a for a in real.analyze_many([*paths, paths[0].parent / "broken.wav"], "full", save=True)}
    assert "5/5" in capfd.readouterr().err
    assert set(found) == {"0.wav", "1.wav", "2.wav", "3.wav", "broken.wav"}
    assert not found["broken.wav"].ok
    assert found["broken.wav"].failures[0].kind == "unreadable audio"
    for path in paths:
        analysis = found[path.name]
        assert analysis.ok
        assert analysis.audio_seconds == pytest.approx(2 + paths.index(path) / 10, abs=0.05)
        assert read_sidecar(path.with_suffix(".INFO"))["music_flamingo_full"] == analysis.captions["full"]


@pytest.mark.real
def test_a_conversation_about_one_track_and_about_two(real_llama_dir: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.mp3", tmp_path / "b.mp3"
    for song, copy in zip(songs(), (first, second), strict=False):
        shutil.copyfile(song.path, copy)
    with MusicFlamingoGGUF("tiny", llama_dir=real_llama_dir, temperature=0.0, threads=1) as flamingo:
        with flamingo.chat(first) as chat:
            pieces: list[str] = []
            tempo = chat.ask("What is the tempo of this track?", on_text=pieces.append)
            assert "".join(pieces).strip() == tempo
            drums = chat.ask("Which drums are played?")
            assert flamingo.analyze(second, prompt="What is the tempo of this track?")
            assert chat.save("drums") == read_sidecar(first.with_suffix(".INFO"))["music_flamingo_drums"]
            assert [turn.answer for turn in chat.history] == [tempo, drums]
        with flamingo.chat([first, str(second)]) as chat:
            assert chat.ask("Which is faster?")
            clips = [write_clip(song, tmp_path / f"{song.name}.wav") for song in (first, second)]
            assert chat.answers[0].audio_tokens == sum(clip.trimmed_tokens for clip in clips)


# -- what the real thing will not do on command --------------------------------------------------------


class SlowEngine(ScriptedEngine):
    """Two slots; counts how many clips are in progress at once, and can be closed in the middle."""

    slots = 2

    def __init__(self) -> None:
        super().__init__(lambda prompt, sampling: GOOD)
        self.at_once = self.most = 0
        self.lock = threading.Lock()

    def describe(
        self,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer = UNOBSERVED,
    ) -> Any:
        with self.lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(0.05)
        yield from super().describe(clip, prompts, sampling)
        with self.lock:
            self.at_once -= 1


def over(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> MusicFlamingoGGUF:
    flamingo = MusicFlamingoGGUF()
    monkeypatch.setattr(flamingo, "_captioner", Captioner(engine, REAL_PAIR, Policy()))
    flamingo._stack.callback(engine.close)
    return flamingo


def test_no_more_tracks_at_once_than_slots(make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SlowEngine()
    paths = [make_wav(f"{n}.wav") for n in range(9)]
    for save in (False, True):
        assert sum(a.ok for a in over(engine, monkeypatch).analyze_many(iter(paths), save=save, progress=False)) == 9
    assert engine.most == 2


def test_paths_may_be_endless_and_leaving_early_ends_the_engine(
    make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def endless() -> Iterator[Path]:
        while True:
            taken.append(1)
            yield path

    path, engine = make_wav(), SlowEngine()
    for analysis in over(engine, monkeypatch).analyze_many(endless(), progress=False):
        assert analysis.ok
        break
    assert engine.closed
    assert len(taken) <= 4


def test_what_fails_is_an_error_that_holds_the_rest(make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(prompt: Prompt, sampling: Sampling) -> str | Failure:
        return Failure("structure", FailureKind.TIMEOUT, "no answer", "wait") if prompt.preset == "structure" else GOOD

    flamingo = over(ScriptedEngine(reply), monkeypatch)
    with pytest.raises(AnalysisError, match=r"\[structure\]: no answer") as raised:
        flamingo.analyze(make_wav())
    assert raised.value.hint == "wait"
    assert set(raised.value.analysis.captions) == set(FIVE) - {"structure"}
    assert flamingo.analyze(make_wav(), "full") == GOOD


def test_nothing_is_saved_unless_asked(make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch) -> None:
    flamingo = over(ScriptedEngine(lambda prompt, sampling: GOOD), monkeypatch)
    wav = make_wav()
    flamingo.analyze(wav)
    assert not wav.with_suffix(".INFO").exists()
    flamingo.analyze(wav, save=True)
    assert read_sidecar(wav.with_suffix(".INFO"))["music_flamingo_full"] == GOOD


def test_a_broken_sidecar_fails_only_what_would_be_saved_into_it(
    make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    flamingo = over(ScriptedEngine(lambda prompt, sampling: GOOD), monkeypatch)
    wav = make_wav()
    wav.with_suffix(".INFO").write_text("{")
    assert flamingo.analyze(wav, "full") == GOOD
    with pytest.raises(AnalysisError, match="not valid JSON"):
        flamingo.analyze(wav, "full", save=True)
    assert wav.with_suffix(".INFO").read_text() == "{"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"temprature": 1}, "no setting 'temprature'"),
        ({"temperature": 9}, "^temperature must be between"),
        ({"temperature": "hot"}, "temperature cannot be 'hot'"),
        ({"threads": 2.5}, "threads cannot be 2.5"),
        ({"seed": True}, "seed cannot be True"),
        ({"prompts": "~nobody-at-all/x.yaml"}, "prompts cannot be"),
        ({"models_dir": ""}, "models_dir cannot be ''"),
    ],
)
def test_a_wrong_setting_is_refused_at_once(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        MusicFlamingoGGUF(**arguments)


def test_wrong_questions_are_refused(make_wav: MakeWav) -> None:
    flamingo = MusicFlamingoGGUF()
    with pytest.raises(ConfigError, match="did you mean full"):
        flamingo.analyze(make_wav(), "fulll")
    with pytest.raises(ConfigError, match="exclude each other"):
        flamingo.analyze(make_wav(), "full", prompt="What?")  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="no key to be saved under"):
        flamingo.analyze(make_wav(), prompt="What?", save=True)


def test_a_missing_model_is_the_same_error_as_on_the_command_line(make_wav: MakeWav, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as raised:
        MusicFlamingoGGUF("Q6_K", models_dir=tmp_path).analyze(make_wav())
    assert "musicflamingo models pull Q6_K" in raised.value.hint


def test_what_is_left_out_is_as_the_settings_files_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text("model: tiny\nengine: mtmd-cli\nseed: 7\n")
    monkeypatch.setenv("MUSICFLAMINGO_CONFIG", str(tmp_path / "config.yaml"))
    assert MusicFlamingoGGUF(threads=np.int64(3)).settings.threads == 3
    settings = MusicFlamingoGGUF(seed=8, models_dir="~/models").settings
    assert (settings.model, settings.engine, settings.seed) == ("tiny", "mtmd-cli", 8)
    assert settings.models_dir == Path.home() / "models"


def test_an_engine_is_opened_once_whoever_asks_first(make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    @contextlib.contextmanager
    def slowly(*_: Any) -> Iterator[Captioner]:
        opened.append(1)
        time.sleep(0.1)
        yield Captioner(SlowEngine(), REAL_PAIR, Policy())

    monkeypatch.setattr(api, "open_captioner", slowly)
    flamingo, wav = MusicFlamingoGGUF(), make_wav()
    threads = [threading.Thread(target=flamingo.analyze, args=(wav, "full")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1


def test_nothing_a_path_may_be_ends_the_others(make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch) -> None:
    flamingo = over(ScriptedEngine(lambda prompt, sampling: GOOD), monkeypatch)
    (make_wav("odd/a.wav").parent / "musicflamingo-prompts.yaml").write_text("presets: [broken")
    twin = make_wav("c.wav").rename(make_wav("b.wav").with_suffix(".flac"))
    paths = [Path(), Path("nowhere.wav"), make_wav("odd/a.wav"), make_wav("b.wav"), twin]
    found = {str(a.path): a for a in flamingo.analyze_many(paths, save=True, progress=False)}
    assert [found[str(path)].ok for path in paths] == [False, False, False, True, False]
    assert "has the same sidecar" in found[str(twin)].failures[0].reason
    with pytest.raises(ConfigError, match="takes many paths"):
        list(flamingo.analyze_many("song.wav"))


def test_an_error_survives_the_way_from_another_process(make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnalysisError) as raised:
        over(ScriptedEngine(lambda prompt, sampling: GOOD), monkeypatch).analyze("nowhere.wav")
    back = pickle.loads(pickle.dumps(raised.value))
    assert (str(back), back.hint, back.analysis) == (str(raised.value), raised.value.hint, raised.value.analysis)


@pytest.fixture
def workloads(monkeypatch: pytest.MonkeyPatch) -> list[Workload]:
    """What engines are opened for, one after another; each always gives the same answer."""
    asked_for: list[Workload] = []

    @contextlib.contextmanager
    def opened(settings: Settings, workload: Workload) -> Iterator[Captioner]:
        asked_for.append(workload)
        yield Captioner(ScriptedEngine(lambda prompt, sampling: GOOD), REAL_PAIR, Policy())

    monkeypatch.setattr(api, "open_captioner", opened)
    return asked_for


def test_the_engine_of_a_conversation_can_hold_one(make_wav: MakeWav, workloads: list[Workload]) -> None:
    flamingo = MusicFlamingoGGUF()
    with flamingo.chat(make_wav()) as chat:
        assert chat.ask("Which key?") == GOOD
    with flamingo.chat(make_wav()) as chat:
        assert chat.history == ()
    assert [workload.is_conversation for workload in workloads] == [True]


def test_presets_that_are_named_need_no_default(make_wav: MakeWav, tmp_path: Path, workloads: list[Workload]) -> None:
    own = tmp_path / "own.yaml"
    texts = "".join(f"  {name}: {{prompt: Tell., default: false}}\n" for name in FIVE)
    own.write_text(f"presets:\n{texts}")
    for ask in (
        lambda flamingo: flamingo.analyze(make_wav(), ["full", "technical"]),
        lambda flamingo: flamingo.analyze(make_wav(), prompt="Which key?"),
        lambda flamingo: list(flamingo.analyze_many([make_wav()], "full", progress=False)),
        lambda flamingo: flamingo.chat(make_wav()).ask("Which key?"),
    ):
        assert ask(MusicFlamingoGGUF(prompts=own))
    assert [workload.prompts for workload in workloads] == [2, 1, 1, 1]


def test_a_datasets_own_preset_is_known_for_many_files(make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = make_wav("music/a.wav")
    audio.with_name("musicflamingo-prompts.yaml").write_text("presets:\n  mine: {prompt: Mine.}\n")
    flamingo = over(ScriptedEngine(lambda prompt, sampling: GOOD), monkeypatch)
    (found,) = flamingo.analyze_many([audio], "mine", progress=False)
    assert found.captions == {"mine": GOOD}
    for paths in ([audio], [], np.array([str(audio)] * 2)):
        with pytest.raises(ConfigError, match="no preset"):
            list(flamingo.analyze_many(paths, "nothing", progress=False))
    audio.with_name("musicflamingo-prompts.yaml").write_text("presets: [")
    (found,) = flamingo.analyze_many([audio], "full", progress=False)
    assert not found.ok
    assert len(list(flamingo.analyze_many(np.array([str(make_wav("b.wav"))]), "full", progress=False))) == 1


def test_presets_lists_those_in_force() -> None:
    assert set(FIVE) <= set(MusicFlamingoGGUF().presets)


# -- the surface ---------------------------------------------------------------------------------------


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("numpy", "soundfile", "av", "yaml", "tqdm", "typer", "musicflamingo_cli.captioning.captioner")
    code = (
        "import sys, musicflamingo_cli\n"
        "from musicflamingo_cli import normalize_text, find_tracks\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", musicflamingo_cli.__all__)
def test_what_is_public_is_documented(name: str) -> None:
    assert getattr(musicflamingo_cli, name).__doc__


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = musicflamingo_cli.nothing


def test_the_parts_work_together(make_wav: MakeWav) -> None:
    wav = make_wav("music/a.wav")
    (track,) = find_tracks(str(wav.parent))
    assert isinstance(track, musicflamingo_cli.types.Track)
    merge_sidecar(track.sidecar, {"music_flamingo_full": normalize_text("**Warm** pads")})
    assert read_sidecar(str(track.sidecar)) == {"music_flamingo_full": "Warm pads"}
    assert api.__all__ == ["Analysis", "AnalysisError", "Chat", "MusicFlamingoGGUF", "MusicFlamingoTransformers"]
