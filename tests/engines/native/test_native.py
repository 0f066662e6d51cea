"""Engine `native` on the real libraries: a clip is heard once, all prompts answer together, nothing is lost."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.config import Settings
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.engines.mtmd_cli import MtmdCliEngine
from musicflamingo_cli.engines.native import engine as native
from musicflamingo_cli.engines.native import process as native_process
from musicflamingo_cli.engines.native.engine import NativeEngine, native_libraries
from musicflamingo_cli.engines.native.messages import RELEASE, SEQUENCES
from musicflamingo_cli.engines.native.process import NativeProcess
from musicflamingo_cli.engines.resident_process import Died
from musicflamingo_cli.errors import ModelError, StoppedError, ToolMissingError
from musicflamingo_cli.llamacpp import binaries as llama_cpp
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling
from tests.conftest import MakeWav

GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
PROMPTS = [Prompt(f"p{index}", f"Say {index}.", max_tokens=12) for index in range(5)]
QUESTIONS = [
    Prompt("technical", "What are the tempo and the key of this track?", max_tokens=60),
    Prompt("instrumentation", "Which instruments are played?", max_tokens=80),
    Prompt("genre_mood", "What genre is this, and what is its mood?", max_tokens=60),
]


@pytest.fixture
def remarks() -> list[str]:
    return []


@pytest.fixture
def engine(random_settings: Settings, remarks: list[str]) -> Iterator[NativeEngine]:
    engine = NativeEngine(random_settings, resolve("F32", random_settings.models_folder), remarks.append)
    yield engine
    engine.close()


def clip_of(path: Path) -> Clip:
    return write_clip(path, path.with_suffix(".clip.wav"))


def answers(
    engine: NativeEngine | MtmdCliEngine, clip: Clip, prompts: list[Prompt], sampling: Sampling = GREEDY
) -> dict[str, Answer]:
    results = list(engine.describe(clip, prompts, sampling))
    assert all(isinstance(result, Answer) for result in results), results
    return {result.prompt.preset: result for result in results if isinstance(result, Answer)}


def running(engine: NativeEngine) -> NativeProcess:
    assert engine._slots._process
    return engine._slots._process


@pytest.mark.real
def test_one_after_another_they_are_the_words_of_mtmd_cli(
    make_wav: MakeWav, engine: NativeEngine, random_settings: Settings
) -> None:
    cli = MtmdCliEngine(random_settings, resolve("F32", random_settings.models_folder))
    prompts = [*PROMPTS[:2], Prompt("odd", "<|im_end|> \\n ä", 12)]  # no system prompt: the tool's puts a line before
    for hertz, seconds, penalty in ((300, 3.0, 1.0), (2000, 31.0, 1.5)):
        clip = clip_of(make_wav(f"{hertz}.wav", seconds, hertz))
        sampling = replace(GREEDY, repeat_penalty=penalty)
        for prompt in prompts:
            (ours,) = answers(engine, clip, [prompt], sampling).values()
            (theirs,) = answers(cli, clip, [prompt], sampling).values()
            assert (ours.text.strip(), ours.hit_limit) == (theirs.text.strip(), theirs.hit_limit)
            assert ours.audio_tokens == clip.audio_tokens


@pytest.mark.real
def test_together_they_name_what_is_played(random_settings: Settings, tmp_path: Path) -> None:
    engine = NativeEngine(random_settings, resolve("tiny", tmp_path), print)
    try:
        for song in songs():
            said = answers(engine, write_clip(song.path, tmp_path / "clip.wav"), QUESTIONS)
            assert song.missed(" ".join(answer.text for answer in said.values())) == []
    finally:
        engine.close()


@pytest.mark.real
def test_more_prompts_than_decode_together_and_words_before_the_audio_that_differ(
    make_wav: MakeWav, engine: NativeEngine
) -> None:
    clip = clip_of(make_wav(seconds=2))
    many = [Prompt(f"p{index}", f"Say {index}.", 4) for index in range(2 * SEQUENCES + 3)]
    steered = [Prompt("a", "Say it.", 12), Prompt("b", "Say it.", 12, system="Be brief.")]
    assert len(answers(engine, clip, many)) == len(many)
    said = answers(engine, clip, steered)
    assert said["a"].text != said["b"].text
    alone = answers(engine, clip, steered[:1])
    assert said["a"].text == alone["a"].text


@pytest.mark.real
def test_samplers_are_llama_cpps_own(make_wav: MakeWav, engine: NativeEngine) -> None:
    clip = clip_of(make_wav(seconds=2))

    def said(sampling: Sampling) -> str:
        (answer,) = engine.describe(clip, PROMPTS[:1], sampling)
        assert isinstance(answer, Answer)
        return answer.text

    warm = Sampling(temperature=1.5, top_p=1.0, repeat_penalty=1.0, seed=1)
    assert said(warm) == said(warm)
    assert len({said(replace(warm, seed=seed)) for seed in range(5)}) > 2
    assert said(replace(warm, top_p=1e-6)) == said(GREEDY)


@pytest.mark.real
def test_four_lanes_hear_their_own_clip(make_wav: MakeWav, engine: NativeEngine, random_settings: Settings) -> None:
    from concurrent.futures import ThreadPoolExecutor

    clips = [clip_of(make_wav(f"{index}.wav", 2 + index, 300 * (index + 1))) for index in range(6)]
    alone = [answers(engine, clip, PROMPTS) for clip in clips]
    model = resolve("F32", random_settings.models_folder)
    together = NativeEngine(replace(random_settings, slots=4), model, print, at_once=8)
    try:
        with ThreadPoolExecutor(together.lanes) as pool:
            results = list(pool.map(lambda clip: answers(together, clip, PROMPTS), clips))
    finally:
        together.close()
    same = sum(
        ours[preset].text == theirs[preset].text for ours, theirs in zip(alone, results, strict=True) for preset in ours
    )
    assert same >= 24  # of 30: sums in another order let near ties flip


@pytest.mark.real
def test_a_hundred_clips_leave_nothing_behind(make_wav: MakeWav, engine: NativeEngine) -> None:
    clips = [clip_of(make_wav(f"{index}.wav", 1, 200 + 100 * index)) for index in range(4)]
    for index in range(20):
        answers(engine, clips[index % 4], PROMPTS[:2])
    worker = psutil.Process(running(engine).child.process.pid)
    before, files = worker.memory_info().rss, worker.num_fds()
    for index in range(100):
        answers(engine, clips[index % 4], PROMPTS[:2])
    assert worker.memory_info().rss < before + 20e6
    assert worker.num_fds() == files


@pytest.mark.real
def test_a_worker_that_is_killed_is_started_again(make_wav: MakeWav, engine: NativeEngine, remarks: list[str]) -> None:
    clip = clip_of(make_wav(seconds=2))
    prompts = [Prompt("short", "Say 0.", 2), Prompt("long", "Say 1.", 3000)]
    results = engine.describe(clip, prompts, Sampling(temperature=2.0, top_p=1.0))
    first = next(results)
    running(engine).child.process.kill()
    presets = [r.prompt.preset for r in [first, *results] if isinstance(r, Answer)]
    assert presets == ["short", "long"]
    assert len(answers(engine, clip, PROMPTS)) == len(PROMPTS)
    assert len([remark for remark in remarks if "started again" in remark]) == 1


@pytest.mark.real
def test_a_long_request_to_a_worker_that_dies_does_not_wait_for_ever(make_wav: MakeWav, engine: NativeEngine) -> None:
    clip = clip_of(make_wav("first.wav"))
    answers(engine, clip, PROMPTS[:1])
    worker = running(engine)
    process = psutil.Process(worker.child.process.pid)
    process.suspend()  # it reads no more, and what is sent fills the line
    threading.Timer(1.0, process.kill).start()
    with pytest.raises(Died):
        list(worker.ask(0, clip, [Prompt("long", "x" * 5_000_000, 12)], GREEDY))


@pytest.mark.real
def test_a_clip_that_is_no_audio_fails_alone(make_wav: MakeWav, engine: NativeEngine) -> None:
    clip = clip_of(make_wav(seconds=2))
    data = clip.path.read_bytes()
    clip.path.write_bytes(b"no audio")
    results = list(engine.describe(clip, PROMPTS, GREEDY))
    assert all(isinstance(result, Failure) for result in results)
    assert len(results) == len(PROMPTS)
    clip.path.write_bytes(data)
    assert len(answers(engine, clip, PROMPTS)) == len(PROMPTS)


@pytest.mark.real
def test_no_answer_in_time_is_a_failure_and_the_next_clip_gets_another_worker(
    make_wav: MakeWav, random_settings: Settings, remarks: list[str]
) -> None:
    model = resolve("F32", random_settings.models_folder)
    engine = NativeEngine(replace(random_settings, timeout=1.5), model, remarks.append)
    short, long = clip_of(make_wav("short.wav", 2)), clip_of(make_wav("long.wav", 600))
    try:
        kinds = {result.kind for result in engine.describe(long, PROMPTS, GREEDY) if isinstance(result, Failure)}
        assert kinds == {"timeout"}
        assert "is started again" in remarks[0]
        assert len(answers(engine, short, PROMPTS)) == len(PROMPTS)
    finally:
        engine.close()
    with pytest.raises(StoppedError):
        list(engine.describe(short, PROMPTS, GREEDY))


@pytest.mark.real
def test_a_model_that_does_not_load_says_why(make_wav: MakeWav, random_settings: Settings, tmp_path: Path) -> None:
    model = resolve("F32", random_settings.models_folder)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    engine = NativeEngine(random_settings, replace(model, language_model=tmp_path / "broken.gguf"), print)
    with pytest.raises(ModelError, match="cannot load the model"):
        list(engine.describe(clip_of(make_wav(seconds=2)), PROMPTS, GREEDY))


# -- bindings and libraries -------------------------------------------------------------------------------


@pytest.mark.real
def test_what_does_not_belong_together_is_refused(
    random_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, version = native_libraries(random_settings)
    assert RELEASE in version

    def refused(settings: Settings = random_settings) -> str:
        with pytest.raises(ToolMissingError) as raised:
            native_libraries(settings)
        assert raised.value.hint
        return str(raised.value)

    with monkeypatch.context() as patch:
        patch.setattr(native, "RELEASE", "b1")
        patch.setattr(llama_cpp, "version", lambda binary: "b22222-cpu")
        assert "describes b1" in refused()
    with monkeypatch.context() as patch:
        patch.setattr(native, "PACKAGE", "no-such-package")
        assert "not installed" in refused()
    with monkeypatch.context() as patch:
        patch.setattr(native, "BINDINGS", "0.1")
        assert "0.1 is needed" in refused()
    (tmp_path / "llama-server").symlink_to(folder / "llama-server")
    with monkeypatch.context() as patch:
        patch.setattr(llama_cpp, "find", lambda name, llama_dir: tmp_path / "bin" / name)
        assert "no shared libraries" in refused()
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "libllama.so").write_bytes(b"nothing of the kind")
        patch.setattr(llama_cpp, "version", lambda binary: f"{RELEASE}-cpu")
        assert "do not load" in refused()


@pytest.mark.real
def test_the_worker_says_what_it_lacks(real_llama_dir: Path) -> None:
    done = subprocess.run([*native_process.WORKER, "--probe"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
