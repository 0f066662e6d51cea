from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from musicflamingo_cli.audio.clip import prepared
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.mtmd_cli import MtmdCliEngine
from musicflamingo_cli.errors import ModelError, ToolMissingError
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.paths import user_log_dir
from musicflamingo_cli.types import Answer, Clip, Failure, Prompt, Sampling, Windows
from tests.conftest import MakeWav
from tests.fakes.mtmd_cli import write_fake

PROMPT = Prompt(preset="full", text="Describe \\n it, -v.", max_tokens=40)
CLIP = Clip(path=Path("/nowhere/clip.wav"), samples=16_000, source_seconds=1.0, was_cut=False)
GREEDY = Sampling(temperature=0.0, seed=7)


@pytest.fixture
def ask(tmp_path: Path, random_models: Path):  # type: ignore[no-untyped-def]
    """Return ``ask(behaviour, **settings)``, which asks a fake binary one prompt."""

    def call(behaviour: str, prompt: Prompt = PROMPT, clip: Clip | None = None, **settings: object) -> Answer | Failure:
        folder = write_fake(tmp_path / "llama", behaviour)
        model = resolve("F32", random_models)
        engine = MtmdCliEngine(Settings(llama_dir=folder, **settings), model)  # type: ignore[arg-type]
        (result,) = engine.describe(
            clip or Clip(path=tmp_path / "clip.wav", samples=16_000, source_seconds=1.0, was_cut=False),
            [prompt],
            GREEDY,
        )
        return result

    return call


def test_an_answer(ask) -> None:  # type: ignore[no-untyped-def]
    result = ask("answer")
    assert isinstance(result, Answer)
    assert result.text.strip() == "A warm track with drums."
    assert not result.hit_limit
    assert result.audio_tokens == 750


def test_the_command_line(ask, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    arguments = json.loads(ask("echo", gpu_layers=3, threads=2, flash_attention=False).text)
    pairs = dict(pairwise(arguments))
    assert {"--jinja", "--no-escape", "--offline", "--no-warmup"} <= set(arguments)
    assert pairs["-p"] == PROMPT.text
    assert pairs["--audio"] == str(tmp_path / "clip.wav")
    assert pairs["-n"] == "40"
    assert pairs["--temp"] == "0.0"
    assert pairs["-s"] == "7"
    assert pairs["-ngl"] == "3"
    assert pairs["-t"] == "2"
    assert pairs["-fa"] == "off"
    assert 750 + 40 + len(PROMPT.text) < int(pairs["-c"]) <= 2048
    assert "-sys" not in arguments


def test_a_system_prompt_is_passed_on(ask) -> None:  # type: ignore[no-untyped-def]
    arguments = json.loads(ask("echo", prompt=Prompt(preset="x", text="y", max_tokens=10, system="Be brief.")).text)
    assert arguments[arguments.index("-sys") + 1] == "Be brief."


def test_settings_in_the_environment_do_not_reach_the_binary(ask, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "64")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    environment = json.loads(ask("environment").text)
    assert "LLAMA_ARG_CTX_SIZE" not in environment
    assert environment["CUDA_VISIBLE_DEVICES"] == "1"


def test_the_context_never_exceeds_the_models(ask) -> None:  # type: ignore[no-untyped-def]
    long = Clip(path=Path("/nowhere/clip.wav"), samples=16_000 * 1200 - 400, source_seconds=1200.0, was_cut=False)
    assert isinstance(ask("answer", prompt=Prompt(preset="x", text="y", max_tokens=500), ctx_size=32768), Answer)
    too_long = ask("answer", clip=long, prompt=Prompt(preset="x", text="y", max_tokens=4000))
    assert isinstance(too_long, Failure)
    assert too_long.kind == "too long"
    assert "--max-seconds" in too_long.hint


@pytest.mark.parametrize(
    ("behaviour", "kind", "reason", "hint"),
    [
        ("crash", "engine", "SIGSEGV", "log"),
        ("illegal", "engine", "instruction", "musicflamingo build --force"),
        ("memory", "engine", "not enough memory", "smaller quant"),
        ("overflow", "engine", "does not fit into the context", "--ctx-size"),
    ],
)
def test_a_failure_has_a_reason_and_a_hint(ask, behaviour: str, kind: str, reason: str, hint: str) -> None:  # type: ignore[no-untyped-def]
    result = ask(behaviour)
    assert isinstance(result, Failure)
    assert result.kind == kind
    assert reason in result.reason
    assert hint in result.hint


def test_a_failed_runs_log_is_kept(ask) -> None:  # type: ignore[no-untyped-def]
    result = ask("crash")
    (log,) = user_log_dir().glob("*.log")
    assert str(log) in result.reason
    assert "something odd" in result.reason
    assert "something odd" in log.read_text()


def test_a_hanging_binary_is_killed_at_the_limit(ask) -> None:  # type: ignore[no-untyped-def]
    started = time.monotonic()
    result = ask("hang", timeout=1.0)
    assert isinstance(result, Failure)
    assert result.kind == "timeout"
    assert time.monotonic() - started < 10


def test_the_whole_process_group_dies(ask, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    ask("grandchild", timeout=1.5)
    pid = int((tmp_path / "llama" / "llama-mtmd-cli.pid").read_text())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "the grandchild still runs"
        time.sleep(0.05)


def test_stdin_is_closed(ask) -> None:  # type: ignore[no-untyped-def]
    assert ask("stdin").text == "stdin held: ''"


def test_bad_utf8_is_decoded_tolerantly(ask) -> None:  # type: ignore[no-untyped-def]
    assert ask("bad_utf8").text == "A warm \ufffd\ufffd track with drums."


def test_a_log_without_audio_tokens_counts_none(ask) -> None:  # type: ignore[no-untyped-def]
    assert ask("no_audio").audio_tokens == 0


def test_output_whose_end_was_lost_is_retried(ask, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Exit code and text look right: only the missing timings show that the end may be lost."""
    assert ask("loses_twice").text.strip() == "A warm track with drums."
    assert (tmp_path / "llama" / "llama-mtmd-cli.count").read_text() == "xxx"


def test_output_that_is_never_complete_is_a_failure(ask) -> None:  # type: ignore[no-untyped-def]
    result = ask("loses")
    assert isinstance(result, Failure)
    assert "lost the end of its output" in result.reason


def test_one_failing_prompt_leaves_the_others(tmp_path: Path, random_models: Path) -> None:
    engine = MtmdCliEngine(Settings(llama_dir=write_fake(tmp_path, "answer")), resolve("F32", random_models))
    clip = Clip(path=tmp_path / "clip.wav", samples=16_000 * 1190, source_seconds=1190.0, was_cut=False)
    results = list(
        engine.describe(
            clip, [Prompt(preset="a", text="x", max_tokens=4096), Prompt(preset="b", text="x", max_tokens=10)], GREEDY
        )
    )
    assert [type(result).__name__ for result in results] == ["Failure", "Answer"]


def test_a_missing_binary_gives_a_hint(tmp_path: Path, random_models: Path) -> None:
    with pytest.raises(ToolMissingError) as caught:
        MtmdCliEngine(Settings(llama_dir=tmp_path), resolve("F32", random_models))
    assert "musicflamingo build" in caught.value.hint


# -- the real binary ---------------------------------------------------------------------------------


def real_engine(settings: Settings) -> MtmdCliEngine:
    return MtmdCliEngine(settings, resolve("F32", settings.models_folder))


def real_answer(settings: Settings, audio: Path, prompt: Prompt = PROMPT, sampling: Sampling = GREEDY) -> Answer:
    engine = real_engine(settings)
    with prepared(audio) as clip:
        (result,) = engine.describe(clip, [prompt], sampling)
    assert isinstance(result, Answer), result
    return result


@pytest.mark.real
def test_the_audio_reaches_the_model(make_wav: MakeWav, random_settings: Settings) -> None:
    """At temperature 0: another clip, another answer; the same clip, the same answer."""
    low, high = make_wav("low.wav", 4, 220), make_wav("high.wav", 4, 3000)
    first, again, other = (real_answer(random_settings, audio) for audio in (low, low, high))
    assert first.text == again.text
    assert first.text != other.text
    assert len(first.text.split()) >= 3


@pytest.mark.real
@pytest.mark.parametrize(
    ("seconds", "padded", "trimmed"),
    [(0.6, 750, 15), (29.9, 750, 747), (30.0, 750, 749), (30.1, 1500, 752), (60.0, 1500, 1499), (95, 3000, 2375)],
)
def test_audio_tokens_follow_from_the_length(
    make_wav: MakeWav, random_settings: Settings, seconds: float, padded: int, trimmed: int
) -> None:
    engine, audio = real_engine(random_settings), make_wav(seconds=seconds)
    is_trimmed = engine.provenance["windows"] == Windows.TRIMMED
    tokens = trimmed if is_trimmed else padded
    assert real_answer(random_settings, audio, Prompt(preset="x", text="Hi", max_tokens=4)).audio_tokens == tokens
    with prepared(audio) as clip:
        assert engine.expected_audio_tokens(clip) == tokens
        assert (clip.padded_tokens, clip.trimmed_tokens) == (padded, trimmed)


@pytest.mark.real
@pytest.mark.parametrize("seconds", [0.5, 1.01, 10, 16, 29.98, 29.99, 30, 30.01, 30.02, 30.03, 31, 45, 60, 60.01])
def test_uncut_clips_make_the_published_models_tokens(
    make_wav: MakeWav, random_settings: Settings, seconds: float
) -> None:
    """Of any length, also those that write_clip avoids."""
    engine = real_engine(random_settings)
    if engine.provenance["windows"] == Windows.PADDED and abs(seconds - 30 * round(seconds / 30)) < 0.025:
        pytest.skip("without our patch, such a length costs one more window")
    samples = round(seconds * 16_000)
    clip = Clip(path=make_wav(seconds=seconds), samples=samples, source_seconds=seconds, was_cut=False)
    (answer,) = engine.describe(clip, [Prompt(preset="x", text="Hi", max_tokens=2)], GREEDY)
    assert isinstance(answer, Answer)
    assert answer.audio_tokens == engine.expected_audio_tokens(clip)


@pytest.mark.real
@pytest.mark.slow
def test_twenty_minutes_fit(make_wav: MakeWav, random_settings: Settings) -> None:
    answer = real_answer(random_settings, make_wav(seconds=1200), Prompt(preset="x", text="Hi", max_tokens=4))
    assert answer.audio_tokens == (30_000 if real_engine(random_settings).provenance["windows"] == "padded" else 29_999)


@pytest.mark.real
def test_the_token_limit_differs_from_the_models_own_end(make_wav: MakeWav, random_settings: Settings) -> None:
    """Around the length at which the model stops by itself, only a lower limit counts as reached."""
    audio = make_wav(seconds=3)
    whole = next(
        answer
        for seed in range(20)
        if not (
            answer := real_answer(
                random_settings, audio, Prompt(preset="x", text="Hi", max_tokens=400), Sampling(seed=seed)
            )
        ).hit_limit
    )
    tokens = len(whole.text.split())  # the tiny model's tokens are words
    just_enough = real_answer(
        random_settings, audio, Prompt(preset="x", text="Hi", max_tokens=tokens + 1), whole.sampling
    )
    too_few = real_answer(random_settings, audio, Prompt(preset="x", text="Hi", max_tokens=tokens), whole.sampling)
    assert just_enough.text == whole.text
    assert not just_enough.hit_limit
    assert too_few.hit_limit


@pytest.mark.real
@pytest.mark.slow
def test_no_output_is_lost_on_a_loaded_machine(make_wav: MakeWav, random_settings: Settings) -> None:
    """Eight at once on few cores: without the patch, the binary silently loses the end of most answers."""
    audio = make_wav(seconds=1)
    prompt = Prompt(preset="x", text="Hi", max_tokens=300)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: real_answer(random_settings, audio, prompt), range(24)))
    assert len({answer.text for answer in answers}) == 1


@pytest.mark.real
def test_the_chat_template_of_the_model_is_used(make_wav: MakeWav, random_settings: Settings) -> None:
    """A system prompt changes the answer, so the template is applied and the flag is understood."""
    audio = make_wav(seconds=2)
    plain = real_answer(random_settings, audio)
    steered = real_answer(
        random_settings, audio, Prompt(preset="full", text=PROMPT.text, max_tokens=40, system="Be brief.")
    )
    assert plain.text != steered.text


@pytest.mark.real
def test_a_model_that_llama_cpp_cannot_load_is_a_model_error(
    make_wav: MakeWav, random_settings: Settings, tmp_path: Path
) -> None:
    """Only its last tensor is cut, so it passes the header check; the error comes from the binary's log."""
    source = random_settings.models_folder / "random.F32.gguf"
    (tmp_path / "cut.gguf").write_bytes(source.read_bytes()[:-100])
    pair = resolve(str(tmp_path / "cut.gguf"), tmp_path, next(random_settings.models_folder.glob("*mmproj*")))
    with prepared(make_wav()) as clip, pytest.raises(ModelError, match="cannot load the model"):
        list(MtmdCliEngine(random_settings, pair).describe(clip, [PROMPT], GREEDY))


def test_a_binary_that_does_not_run_is_a_missing_tool(tmp_path: Path, random_models: Path) -> None:
    write_fake(tmp_path, "answer").joinpath("llama-mtmd-cli").write_text(
        "#!/bin/sh\necho libcudart missing\nexit 127\n"
    )
    with pytest.raises(ToolMissingError, match="libcudart missing"):
        MtmdCliEngine(Settings(llama_dir=tmp_path), resolve("F32", random_models))
