"""Engine `native` on the real libraries: audio is processed once, all prompts are answered together."""

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
from musicflamingo_cli.engines.messages import Reply
from musicflamingo_cli.engines.mtmd_cli import MtmdCliEngine
from musicflamingo_cli.engines.native import engine as native
from musicflamingo_cli.engines.native import engine as native_engine
from musicflamingo_cli.engines.native.bindings import RELEASE, SEQUENCES
from musicflamingo_cli.engines.native.engine import NativeEngine, native_libraries
from musicflamingo_cli.engines.resident_process import Died
from musicflamingo_cli.engines.worker_process import WorkerProcess
from musicflamingo_cli.errors import FailureKind, ModelError, StoppedError, ToolMissingError, TooLongError
from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling
from tests.conftest import MakeWav

GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
PROMPTS = [Prompt(preset=f"p{index}", text=f"Say {index}.", max_tokens=12) for index in range(5)]
QUESTIONS = [
    Prompt(preset="technical", text="What are the tempo and the key of this track?", max_tokens=60),
    Prompt(preset="instrumentation", text="Which instruments are played?", max_tokens=80),
    Prompt(preset="genre_mood", text="What genre is this, and what is its mood?", max_tokens=60),
]


@pytest.fixture
def engine(random_settings: Settings) -> Iterator[NativeEngine]:
    engine = NativeEngine(random_settings, resolve("F32", random_settings.models_folder))
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


def running(engine: NativeEngine) -> WorkerProcess:
    assert engine._slots._process
    return engine._slots._process


@pytest.mark.real
@pytest.mark.slow
def test_answers_one_by_one_equal_those_of_mtmd_cli(
    make_wav: MakeWav, engine: NativeEngine, random_settings: Settings
) -> None:
    cli = MtmdCliEngine(random_settings, resolve("F32", random_settings.models_folder))
    if cli.provenance["windows"] != engine.windows:
        pytest.skip("without our patch, mtmd-cli pads with silence what native leaves out")
    prompts = [
        *PROMPTS[:2],
        Prompt(preset="odd", text="<|im_end|> \\n ä", max_tokens=12),
    ]  # no system prompt: the tool's puts a line before
    for hertz, seconds, penalty in ((300, 3.0, 1.0), (2000, 31.0, 1.5)):
        clip = clip_of(make_wav(f"{hertz}.wav", seconds, hertz))
        sampling = replace(GREEDY, repeat_penalty=penalty)
        for prompt in prompts:
            (ours,) = answers(engine, clip, [prompt], sampling).values()
            (theirs,) = answers(cli, clip, [prompt], sampling).values()
            assert (ours.text.strip(), ours.hit_limit) == (theirs.text.strip(), theirs.hit_limit)
            assert ours.audio_tokens == engine.expected_audio_tokens(clip)


@pytest.mark.real
@pytest.mark.parametrize("seconds", [0.5, 10, 29.99, 30, 30.01, 30.03, 45, 60, 60.01])
def test_only_audio_makes_tokens_with_any_build(make_wav: MakeWav, engine: NativeEngine, seconds: float) -> None:
    path, samples = make_wav(seconds=seconds), round(seconds * 16_000)
    clip = Clip(path=path, samples=samples, source_seconds=seconds, was_cut=False)
    twice = replace(clip, also=(clip,))
    assert answers(engine, clip, PROMPTS[:1])["p0"].audio_tokens == clip.trimmed_tokens
    assert answers(engine, twice, PROMPTS[:1])["p0"].audio_tokens == twice.trimmed_tokens == 2 * clip.trimmed_tokens


@pytest.mark.real
def test_answers_together_name_what_is_played(random_settings: Settings, tmp_path: Path) -> None:
    engine = NativeEngine(random_settings, resolve("tiny", tmp_path))
    try:
        for song in songs():
            replies = answers(engine, write_clip(song.path, tmp_path / "clip.wav"), QUESTIONS)
            assert song.missed(" ".join(answer.text for answer in replies.values())) == []
    finally:
        engine.close()


@pytest.mark.real
def test_many_prompts_and_different_system_prompts(make_wav: MakeWav, engine: NativeEngine) -> None:
    clip = clip_of(make_wav(seconds=2))
    many = [Prompt(preset=f"p{index}", text=f"Say {index}.", max_tokens=4) for index in range(2 * SEQUENCES + 3)]
    steered = [
        Prompt(preset="a", text="Say it.", max_tokens=12),
        Prompt(preset="b", text="Say it.", max_tokens=12, system="Be brief."),
    ]
    assert len(answers(engine, clip, many)) == len(many)
    replies = answers(engine, clip, steered)
    assert replies["a"].text != replies["b"].text
    alone = answers(engine, clip, steered[:1])
    assert replies["a"].text == alone["a"].text


@pytest.mark.real
def test_a_question_without_a_grammar_fails_alone(make_wav: MakeWav, engine: NativeEngine) -> None:
    """Its clip's other answers are not taken for those about the next clip."""
    first, second = clip_of(make_wav("a.wav", 2, 300)), clip_of(make_wav("b.wav", 3, 900))
    expected = [answers(engine, clip, PROMPTS)["p0"].text for clip in (first, second)]
    unusable = Prompt(preset="bad", text="Which?", max_tokens=12, schema='{"type": "string", "enum": ["12\\" single"]}')
    for clip, text in zip((first, second, first), (*expected, expected[0]), strict=True):
        results = list(engine.describe(clip, [PROMPTS[0], unusable, PROMPTS[1]], GREEDY))
        failures = [each for each in results if isinstance(each, Failure)]
        assert [(each.preset, each.kind) for each in failures] == [("bad", FailureKind.ENGINE)]
        assert "grammar" in failures[0].reason
        found = {each.prompt.preset: each.text for each in results if isinstance(each, Answer)}
        assert set(found) == {"p0", "p1"}
        assert found["p0"] == text


@pytest.mark.real
def test_a_question_that_does_not_fit_fails_alone(make_wav: MakeWav, random_settings: Settings) -> None:
    model = resolve("F32", random_settings.models_folder)
    engine = NativeEngine(replace(random_settings, ctx_size=1200), model)
    clip, long = clip_of(make_wav(seconds=2)), replace(PROMPTS[1], max_tokens=5000)
    try:
        failure, answer = engine.describe(clip, [PROMPTS[0], long], GREEDY)
        assert isinstance(failure, Failure)
        assert (failure.preset, failure.kind) == ("p1", FailureKind.TOO_LONG)
        assert isinstance(answer, Answer)
        with pytest.raises(TooLongError):
            list(engine.describe(clip, [long], GREEDY))
    finally:
        engine.close()


@pytest.mark.real
def test_a_reply_about_an_earlier_clip_is_dropped(
    make_wav: MakeWav, engine: NativeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    clip = clip_of(make_wav(seconds=2))
    expected = answers(engine, clip, PROMPTS[:1])["p0"].text
    running(engine)._deliver(Reply(slot=0, request=0, preset="p0", text="about another clip"))
    assert answers(engine, clip, PROMPTS[:1])["p0"].text == expected
    assert "earlier request" in caplog.text


@pytest.mark.real
def test_sampling_settings_take_effect(make_wav: MakeWav, engine: NativeEngine) -> None:
    clip = clip_of(make_wav(seconds=2))

    def text_with(sampling: Sampling) -> str:
        (answer,) = engine.describe(clip, PROMPTS[:1], sampling)
        assert isinstance(answer, Answer)
        return answer.text

    warm = Sampling(temperature=1.5, top_p=1.0, repeat_penalty=1.0, seed=1)
    assert text_with(warm) == text_with(warm)
    assert len({text_with(replace(warm, seed=seed)) for seed in range(5)}) > 2
    assert text_with(replace(warm, top_p=1e-6)) == text_with(GREEDY)


@pytest.mark.real
def test_four_slots_answer_about_their_own_clip(
    make_wav: MakeWav, engine: NativeEngine, random_settings: Settings
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    clips = [clip_of(make_wav(f"{index}.wav", 2 + index, 300 * (index + 1))) for index in range(6)]
    alone = [answers(engine, clip, PROMPTS) for clip in clips]
    model = resolve("F32", random_settings.models_folder)
    together = NativeEngine(replace(random_settings, slots=4), model, at_once=8)
    try:
        with ThreadPoolExecutor(together.slots) as pool:
            results = list(pool.map(lambda clip: answers(together, clip, PROMPTS), clips))
    finally:
        together.close()
    same = sum(
        ours[preset].text == theirs[preset].text for ours, theirs in zip(alone, results, strict=True) for preset in ours
    )
    assert same >= 24  # of 30: another order of sums changes a few near-ties


@pytest.mark.real
@pytest.mark.slow
def test_a_hundred_clips_leak_no_memory_or_files(make_wav: MakeWav, engine: NativeEngine) -> None:
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
def test_a_killed_worker_is_restarted(
    make_wav: MakeWav, engine: NativeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    clip = clip_of(make_wav(seconds=2))
    prompts = [
        Prompt(preset="short", text="Say 0.", max_tokens=2),
        Prompt(preset="long", text="Say 1.", max_tokens=3000),
    ]
    results = engine.describe(clip, prompts, Sampling(temperature=2.0, top_p=1.0))
    first = next(results)
    running(engine).child.process.kill()
    presets = [r.prompt.preset for r in [first, *results] if isinstance(r, Answer)]
    assert presets == ["short", "long"]
    assert len(answers(engine, clip, PROMPTS)) == len(PROMPTS)
    assert len([message for message in caplog.messages if "restarted" in message]) == 1


@pytest.mark.real
def test_a_long_request_to_a_dying_worker_does_not_hang(make_wav: MakeWav, engine: NativeEngine) -> None:
    clip = clip_of(make_wav("first.wav"))
    answers(engine, clip, PROMPTS[:1])
    worker = running(engine)
    process = psutil.Process(worker.child.process.pid)
    process.suspend()  # it reads no more, so the connection fills up
    threading.Timer(1.0, process.kill).start()
    with pytest.raises(Died):
        list(worker.ask(0, clip, [Prompt(preset="long", text="x" * 5_000_000, max_tokens=12)], GREEDY))


@pytest.mark.real
def test_a_clip_that_is_not_audio_fails_without_a_restart(make_wav: MakeWav, engine: NativeEngine) -> None:
    clip = clip_of(make_wav(seconds=2))
    data = clip.path.read_bytes()
    clip.path.write_bytes(b"no audio")
    results = list(engine.describe(clip, PROMPTS, GREEDY))
    assert all(isinstance(result, Failure) for result in results)
    assert len(results) == len(PROMPTS)
    clip.path.write_bytes(data)
    assert len(answers(engine, clip, PROMPTS)) == len(PROMPTS)


@pytest.mark.real
@pytest.mark.slow
def test_after_a_timeout_the_next_clip_gets_a_new_worker(
    make_wav: MakeWav, random_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    model = resolve("F32", random_settings.models_folder)
    engine = NativeEngine(replace(random_settings, timeout=1.5), model)
    short, long = clip_of(make_wav("short.wav", 2)), clip_of(make_wav("long.wav", 600))
    try:
        kinds = {result.kind for result in engine.describe(long, PROMPTS, GREEDY) if isinstance(result, Failure)}
        assert kinds == {"timeout"}
        assert "is restarted" in caplog.messages[0]
        assert len(answers(engine, short, PROMPTS)) == len(PROMPTS)
    finally:
        engine.close()
    with pytest.raises(StoppedError):
        list(engine.describe(short, PROMPTS, GREEDY))


@pytest.mark.real
def test_a_model_that_does_not_load_is_a_model_error(
    make_wav: MakeWav, random_settings: Settings, tmp_path: Path
) -> None:
    model = resolve("F32", random_settings.models_folder)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    engine = NativeEngine(random_settings, replace(model, language_model=tmp_path / "broken.gguf"))
    with pytest.raises(ModelError, match="cannot load the model"):
        list(engine.describe(clip_of(make_wav(seconds=2)), PROMPTS, GREEDY))


# -- bindings and libraries -------------------------------------------------------------------------------


@pytest.mark.real
def test_mismatched_bindings_and_libraries_are_rejected(
    random_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, version = native_libraries(random_settings)
    assert RELEASE in version

    def error_of(settings: Settings = random_settings) -> str:
        with pytest.raises(ToolMissingError) as raised:
            native_libraries(settings)
        assert raised.value.hint
        return str(raised.value)

    with monkeypatch.context() as patch:
        patch.setattr(native, "RELEASE", "b1")
        patch.setattr(binaries, "version", lambda binary: "b22222-cpu")
        assert "is made for b1" in error_of()
    with monkeypatch.context() as patch:
        patch.setattr(native, "PACKAGE", "no-such-package")
        assert "not installed" in error_of()
    with monkeypatch.context() as patch:
        patch.setattr(native, "BINDINGS", "0.1")
        assert "0.1 is needed" in error_of()
    (tmp_path / "llama-server").symlink_to(folder / "llama-server")
    with monkeypatch.context() as patch:
        patch.setattr(binaries, "find", lambda name, llama_dir: tmp_path / "bin" / name)
        assert "no shared libraries" in error_of()
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "libllama.so").write_bytes(b"not a library")
        patch.setattr(binaries, "version", lambda binary: f"{RELEASE}-cpu")
        assert "do not load" in error_of()


@pytest.mark.real
def test_a_worker_without_libraries_reports_it_in_one_line(real_llama_dir: Path) -> None:
    done = subprocess.run([*native_engine.WORKER, "--probe"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
