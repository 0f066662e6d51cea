"""Engine `transformers` on real checkpoints: the answers are those of the published recipe, the audio is heard once."""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.choices import Quantization
from musicflamingo_cli.config import Settings
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.engines.observer import TextObserver
from musicflamingo_cli.engines.transformers import engine as engine_module
from musicflamingo_cli.engines.transformers.engine import TransformersEngine
from musicflamingo_cli.engines.worker_process import WorkerProcess
from musicflamingo_cli.errors import AnswerCancelledError, ModelError, StoppedError, ToolMissingError
from musicflamingo_cli.models.model import Checkpoint
from musicflamingo_cli.paths import built_in_prompts
from musicflamingo_cli.prompts import choose, load_presets
from musicflamingo_cli.types import NO_AUDIO, Answer, Clip, Failure, Prompt, Sampling, Turn
from tests.conftest import MakeWav
from tests.engines.transformers.conftest import KINDS, Recipe

pytestmark = pytest.mark.slow
GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
PRESETS = [replace(preset.render({}), max_tokens=40) for preset in choose(load_presets([built_in_prompts()]), [])]
SHORT = [Prompt(preset=f"p{index}", text=f"What is {index}?", max_tokens=6 + 5 * index) for index in range(3)]
SETTINGS = Settings(threads=1, timeout=120)


def opened(checkpoint: Checkpoint, slots: int = 1, **settings: object) -> TransformersEngine:
    return TransformersEngine(replace(SETTINGS, slots=slots, **settings), checkpoint, slots)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny(checkpoints: dict[str, Checkpoint]) -> Iterator[TransformersEngine]:
    engine = opened(checkpoints["tiny"])
    yield engine
    engine.close()


def clip_of(path: Path) -> Clip:
    return write_clip(path, path.with_suffix(".clip.wav"))


def answers(
    engine: TransformersEngine, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling = GREEDY
) -> dict[str, Answer]:
    results = list(engine.describe(clip, prompts, sampling))
    assert all(isinstance(result, Answer) for result in results), results
    return {result.prompt.preset: result for result in results if isinstance(result, Answer)}


def texts(engine: TransformersEngine, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling = GREEDY) -> list[str]:
    found = answers(engine, clip, prompts, sampling)
    return [found[prompt.preset].text for prompt in prompts]


def process_of(engine: TransformersEngine) -> WorkerProcess:
    assert engine._slots._process
    return engine._slots._process


def test_it_names_what_is_played(tiny: TransformersEngine, tmp_path: Path) -> None:
    for song in songs():
        prompts = [replace(prompt, max_tokens=120) for prompt in PRESETS]
        found = texts(tiny, write_clip(song.path, tmp_path / "clip.wav"), prompts)
        assert song.missed(" ".join(found)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_are_those_of_the_recipe(
    kind: str, checkpoints: dict[str, Checkpoint], make_wav: MakeWav, tmp_path: Path
) -> None:
    recipe, engine = Recipe(checkpoints[kind]), opened(checkpoints[kind])
    song = songs()[1]
    clips = [write_clip(song.path, tmp_path / "song.wav"), clip_of(make_wav("long.wav", 61.3))]
    try:
        for clip in clips:
            found = answers(engine, clip, PRESETS)
            for prompt in PRESETS:
                assert found[prompt.preset].text == recipe.answer(clip, prompt)
                assert found[prompt.preset].audio_tokens == clip.trimmed_tokens == engine.expected_audio_tokens(clip)
    finally:
        engine.close()


@pytest.mark.parametrize("kind", ["tiny", "random AF-Next"])
def test_twenty_tracks_in_batches_equal_one_by_one(
    kind: str, checkpoints: dict[str, Checkpoint], make_wav: MakeWav
) -> None:
    clips = [clip_of(make_wav(f"{n}.wav", 0.6 + 2.3 * n, 200 + 40 * n)) for n in range(20)]
    one, four = opened(checkpoints[kind]), opened(checkpoints[kind], slots=4)
    try:
        assert four.slots == 4
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda clip: texts(four, clip, SHORT), clips))
        assert together == [texts(one, clip, SHORT) for clip in clips]
        assert len({tuple(each) for each in together}) > 3  # not the same words about everything
    finally:
        one.close()
        four.close()


def test_sampling_does_not_depend_on_the_batch(tiny: TransformersEngine, tmp_path: Path) -> None:
    clip = write_clip(songs()[0].path, tmp_path / "clip.wav")
    sampling = Sampling(temperature=1.5, top_p=1.0, seed=7)
    together = texts(tiny, clip, PRESETS, sampling)
    assert together == [texts(tiny, clip, [prompt], sampling)[0] for prompt in PRESETS]
    assert together != texts(tiny, clip, PRESETS, replace(sampling, seed=8))


def test_limits_and_ends_are_told_apart(tiny: TransformersEngine, tmp_path: Path) -> None:
    clip = write_clip(songs()[0].path, tmp_path / "clip.wav")
    whole = answers(tiny, clip, [replace(PRESETS[0], max_tokens=300)])["full"]
    assert not whole.hit_limit
    assert whole.answer_tokens
    for limit, hit in ((whole.answer_tokens, True), (whole.answer_tokens + 1, False)):
        assert answers(tiny, clip, [replace(PRESETS[0], max_tokens=limit)])["full"].hit_limit is hit


@pytest.mark.parametrize("samples", [8000, 480_000, 480_001, 480_320, 480_321, 960_100])
def test_odd_lengths_are_heard(samples: int, checkpoints: dict[str, Checkpoint], tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    path = tmp_path / "odd.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(samples) / 20), 16_000, subtype="FLOAT")
    clip = Clip(path=path, samples=samples, source_seconds=None, was_cut=False)
    engine = opened(checkpoints["tiny as MusicFlamingo"])
    try:
        assert answers(engine, clip, SHORT[:1])["p0"].audio_tokens == clip.trimmed_tokens
    finally:
        engine.close()


@pytest.mark.parametrize("kind", ["tiny", "random 2601"])
def test_a_conversation_equals_the_recipe(kind: str, checkpoints: dict[str, Checkpoint], tmp_path: Path) -> None:
    recipe, engine = Recipe(checkpoints[kind]), opened(checkpoints[kind])
    clip = write_clip(songs()[2].path, tmp_path / "clip.wav")
    questions = ["What genre is this?", "Which instruments are played?", "What is the tempo?"]
    turns: list[Turn] = []
    try:
        for number, question in enumerate(questions):
            prompt = Prompt(preset="chat", text=question, max_tokens=50, history=tuple(turns))
            (answer,) = answers(engine, clip, [prompt]).values()
            said = [turn.answer for turn in turns]
            assert answer.text == recipe.converse(clip, questions[: number + 1], said, 50)
            turns.append(Turn(question, answer.text))
    finally:
        engine.close()


@pytest.mark.parametrize("kind", ["tiny", "random 2601"])
def test_a_question_in_words_only_equals_the_recipe(kind: str, checkpoints: dict[str, Checkpoint]) -> None:
    recipe, engine = Recipe(checkpoints[kind]), opened(checkpoints[kind])
    try:
        (answer,) = answers(engine, NO_AUDIO, [Prompt("chat", "What is the capital of France?", 30)]).values()
        assert answer.text == recipe.converse(NO_AUDIO, ["What is the capital of France?"], [], 30)
        assert answer.audio_tokens == 0
    finally:
        engine.close()


def test_two_clips_are_heard_in_their_order(checkpoints: dict[str, Checkpoint], tmp_path: Path) -> None:
    """The published processor takes one clip for each conversation: there is no recipe to compare with."""
    first, second = (write_clip(song.path, tmp_path / f"{song.path.stem}.wav") for song in songs()[:2])
    engine = opened(checkpoints["random 2601"])
    try:
        found = []
        for clip in (replace(first, also=(second,)), replace(second, also=(first,)), first):
            (answer,) = answers(engine, clip, PRESETS[:1]).values()
            assert answer.audio_tokens == clip.trimmed_tokens
            found.append(answer.text)
        assert len(set(found)) == 3
    finally:
        engine.close()


def test_pieces_of_an_answer_and_its_end_from_outside(tiny: TransformersEngine, tmp_path: Path) -> None:
    clip = write_clip(songs()[0].path, tmp_path / "clip.wav")
    pieces: list[str] = []
    (whole,) = tiny.describe(clip, PRESETS[:1], GREEDY, TextObserver(pieces.append))
    assert isinstance(whole, Answer)
    assert "".join(pieces) == whole.text
    assert len(pieces) > 5
    before = process_of(tiny)

    def stop(text: str) -> None:
        raise AnswerCancelledError("enough", "")

    with pytest.raises(AnswerCancelledError):
        list(tiny.describe(clip, PRESETS[:1], GREEDY, TextObserver(stop)))
    assert process_of(tiny) is before
    assert texts(tiny, clip, PRESETS[:1]) == [whole.text]


def test_an_unreadable_clip_fails_alone(tiny: TransformersEngine, tmp_path: Path, make_wav: MakeWav) -> None:
    gone = Clip(path=tmp_path / "gone.wav", samples=16_000, source_seconds=1.0, was_cut=False)
    results = list(tiny.describe(gone, SHORT, GREEDY))
    assert [type(result) for result in results] == [Failure] * 3
    assert len(texts(tiny, clip_of(make_wav(seconds=1.0)), SHORT)) == 3


def test_a_killed_worker_is_started_again(
    checkpoints: dict[str, Checkpoint], make_wav: MakeWav, caplog: pytest.LogCaptureFixture
) -> None:
    engine = opened(checkpoints["tiny"])
    clip = clip_of(make_wav(seconds=2.0))
    try:
        before = texts(engine, clip, PRESETS[:1])
        first = process_of(engine)
        results = list(
            engine.describe(clip, PRESETS[:1], GREEDY, TextObserver(lambda text: first.child.process.kill()))
        )
        assert [result.text for result in results if isinstance(result, Answer)] == before
        assert process_of(engine) is not first
        assert "transformers died and is restarted" in caplog.text
    finally:
        engine.close()


def test_closing_stops_it_in_the_middle(checkpoints: dict[str, Checkpoint], make_wav: MakeWav) -> None:
    engine = opened(checkpoints["random 2601"])
    clip = clip_of(make_wav(seconds=2.0))
    endless = [Prompt(preset="endless", text="Go on.", max_tokens=4000)]
    texts(engine, clip, SHORT[:1])
    threading.Timer(0.3, engine.close).start()
    with pytest.raises(StoppedError):
        list(engine.describe(clip, endless, GREEDY, TextObserver(lambda text: None)))


def test_provenance_says_how_the_model_was_run(tiny: TransformersEngine, make_wav: MakeWav) -> None:
    texts(tiny, clip_of(make_wav(seconds=1.0)), SHORT[:1])
    keys = {"transformers", "torch", "device", "dtype", "attention", "quantization", "windows"}
    assert set(tiny.provenance) == keys
    assert (tiny.provenance["dtype"], tiny.provenance["windows"]) == ("float32", "trimmed")


MEMORY_LIMIT = """
import resource, sys
from musicflamingo_cli.engines.transformers import model, worker
load = model.Model.__init__
def load_and_limit(self, options):
    load(self, options)
    self.net.generation_config  # loaded
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limit = used + {megabytes} * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
model.Model.__init__ = load_and_limit
worker.main()
"""


@pytest.mark.parametrize("slots", [1, 2])
def test_a_lack_of_memory_halves_and_goes_on(
    slots: int,
    checkpoints: dict[str, Checkpoint],
    make_wav: MakeWav,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clips = [clip_of(make_wav(f"{n}.wav", 89.0, 300 + 100 * n)) for n in range(slots)]
    prompts = [Prompt(preset=f"p{index}", text=f"What is {index}?", max_tokens=2) for index in range(800)]
    expected = opened(checkpoints["tiny"])
    script = MEMORY_LIMIT.format(megabytes=300)
    limited_command = (sys.executable, "-P", "-c", script)
    try:
        before = [texts(expected, clip, prompts) for clip in clips]
        monkeypatch.setattr(engine_module, "WORKER", limited_command)
        limited = opened(checkpoints["tiny"], slots=slots)
        with ThreadPoolExecutor(slots) as pool:
            after = list(pool.map(lambda clip: texts(limited, clip, prompts), clips))
        assert after == before
        assert "not enough memory" in caplog.text
    finally:
        expected.close()
        limited.close()


def test_a_clip_that_never_fits_is_one_failure(
    checkpoints: dict[str, Checkpoint], make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "WORKER", (sys.executable, "-P", "-c", MEMORY_LIMIT.format(megabytes=60)))
    engine = opened(checkpoints["tiny"])
    try:
        results = list(engine.describe(clip_of(make_wav(seconds=290.0)), SHORT[:1], GREEDY))
        assert [type(result) for result in results] == [Failure]
        assert "not enough memory" in results[0].reason  # type: ignore[union-attr]
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("config.json", "{}"), "cannot load the checkpoint"),
        (("model.safetensors", "garbage"), "cannot load the checkpoint"),
    ],
)
def test_a_broken_checkpoint_is_one_error(
    change: tuple[str, str], words: str, checkpoints: dict[str, Checkpoint], tmp_path: Path, make_wav: MakeWav
) -> None:
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(checkpoints["tiny"].folder, folder)
    (folder / change[0]).write_text(change[1])
    engine = opened(replace(checkpoints["tiny"], folder=folder))
    with pytest.raises(ModelError, match=words):
        texts(engine, clip_of(make_wav(seconds=1.0)), SHORT[:1])
    engine.close()


def test_a_device_that_is_not_there_is_one_error(checkpoints: dict[str, Checkpoint], make_wav: MakeWav) -> None:
    engine = opened(checkpoints["tiny"], device="cuda:7")
    with pytest.raises(ModelError, match="torch does not have this device"):
        texts(engine, clip_of(make_wav(seconds=1.0)), SHORT[:1])
    engine.close()


def test_flash_attention_that_is_missing_is_one_error(checkpoints: dict[str, Checkpoint], make_wav: MakeWav) -> None:
    engine = opened(checkpoints["tiny"], attention="flash_attention_2")
    with pytest.raises(ModelError, match="flash-attention is not installed"):
        texts(engine, clip_of(make_wav(seconds=1.0)), SHORT[:1])
    engine.close()


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_without_the_extra_it_names_the_command(
    package: str, checkpoints: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ToolMissingError, match=f"{package} is not installed") as caught:
        opened(checkpoints["tiny"])
    assert "pip install 'musicflamingo[transformers]'" in caught.value.hint


def test_quantization_without_its_library_names_it(
    checkpoints: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ToolMissingError, match="nf4 needs bitsandbytes"):
        opened(checkpoints["tiny"], quantize=Quantization.NF4)


@pytest.mark.parametrize("name", [name for name in Quantization if name is not Quantization.NONE])
def test_only_the_language_model_is_quantized(name: Quantization, checkpoints: dict[str, Checkpoint]) -> None:
    """Where the libraries are installed, which no extra brings: the answers depend on what they leave alone."""
    pytest.importorskip("torchao" if name is Quantization.INT8 else "bitsandbytes")
    from musicflamingo_cli.engines.transformers.model import Model

    options = argparse.Namespace(
        folder=str(checkpoints["tiny"].folder), device="cpu", attention="sdpa", quantize=name, threads=1
    )
    layers: dict[str, set[str]] = {}
    for path, module in Model(options).net.named_modules():
        if "Linear" in type(module).__name__:
            part = path.removeprefix("model.").split(".")[0]
            layers.setdefault(part, set()).add(type(module.weight).__name__)
    changed = {part for part, weights in layers.items() if weights != {"Parameter"}}
    assert changed == {"language_model"}
    assert {"audio_tower", "multi_modal_projector", "lm_head"} < set(layers)


def test_quantization_is_refused_on_rocm(checkpoints: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.13.0+rocm7.1", "transformers": "5.23.0"}
    monkeypatch.setattr("importlib.metadata.version", versions.__getitem__)
    with pytest.raises(ToolMissingError, match="does not work with torch for ROCm"):
        opened(checkpoints["tiny"], quantize=Quantization.INT8)


def test_importing_the_engine_imports_no_torch() -> None:
    code = "import sys, musicflamingo_cli.engines.transformers.engine; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
