"""Answers under a JSON schema on the real engines: the random model, which knows no JSON, cannot but follow it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.conversation import response_format
from musicflamingo_cli.engines.mtmd_cli import MtmdCliEngine
from musicflamingo_cli.engines.native.engine import NativeEngine
from musicflamingo_cli.engines.server.embedded import embedded_server
from musicflamingo_cli.engines.server.server import ServerEngine, llama_server
from musicflamingo_cli.errors import EngineError
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.text.schema import parsed
from musicflamingo_cli.types import NO_AUDIO, Answer, Prompt, Sampling
from tests.conftest import MakeWav
from tests.engines.test_conversations import clip_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "genre": {"type": "string", "maxLength": 12},
        "mood": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
        "vocals": {"type": "string", "enum": ["", "none", "male"]},
        "tempo": {"type": "integer"},
    },
    "required": ["genre", "mood", "vocals", "tempo"],
}
HOT = Sampling(temperature=2.0, top_p=1.0, repeat_penalty=1.0)


def prompt(schema: dict[str, Any] | None = None) -> Prompt:
    return Prompt(preset="json", text="A slow waltz.", max_tokens=600, schema=json.dumps(schema) if schema else "")


@pytest.fixture(params=["server", "embedded", "native"])
def engine(request: pytest.FixtureRequest, random_settings: Settings) -> Iterator[NativeEngine | ServerEngine]:
    model = resolve("F32", random_settings.models_folder)
    if request.param == "native":
        engine: NativeEngine | ServerEngine = NativeEngine(random_settings, model)
    else:
        program = llama_server(random_settings) if request.param == "server" else embedded_server()
        engine = ServerEngine(program, random_settings, model)
    yield engine
    engine.close()


@pytest.mark.real
def test_an_answer_in_words_only_follows_its_schema(engine: NativeEngine | ServerEngine) -> None:
    for seed in range(4):
        sampling = Sampling(temperature=HOT.temperature, top_p=1.0, repeat_penalty=1.0, seed=seed)
        (answer,) = engine.describe(NO_AUDIO, [prompt(SCHEMA)], sampling)
        assert isinstance(answer, Answer), answer
        value, problem = parsed(answer.text, SCHEMA)
        assert not problem, (problem, answer.text)
        assert set(value) == {"genre", "mood", "vocals", "tempo"}


@pytest.mark.real
def test_without_a_schema_it_writes_no_json(engine: NativeEngine | ServerEngine) -> None:
    (answer,) = engine.describe(NO_AUDIO, [prompt()], HOT)
    assert isinstance(answer, Answer), answer
    assert parsed(answer.text, SCHEMA)[1] == "not valid JSON"


@pytest.mark.real
def test_prose_and_json_about_one_clip(engine: NativeEngine | ServerEngine, make_wav: MakeWav) -> None:
    prose = Prompt(preset="prose", text="Describe it.", max_tokens=8)
    clip = clip_of(make_wav(seconds=3))
    texts = {}
    for answer in engine.describe(clip, [prompt(SCHEMA), prose], HOT):
        assert isinstance(answer, Answer), answer
        texts[answer.prompt.preset] = answer.text
    assert not parsed(texts["json"], SCHEMA)[1]
    assert parsed(texts["prose"], SCHEMA)[1]


@pytest.mark.real
def test_mtmd_cli_takes_a_schema_with_audio_only(random_settings: Settings, make_wav: MakeWav) -> None:
    engine = MtmdCliEngine(random_settings, resolve("F32", random_settings.models_folder))
    (answer,) = engine.describe(clip_of(make_wav(seconds=3)), [prompt(SCHEMA)], HOT)
    assert isinstance(answer, Answer), answer
    assert not parsed(answer.text, SCHEMA)[1]
    with pytest.raises(EngineError, match="without audio"):
        list(engine.describe(NO_AUDIO, [prompt(SCHEMA)], HOT))


def test_a_chat_request_names_the_schema() -> None:
    assert response_format(prompt()) == {}
    assert response_format(prompt(SCHEMA))["response_format"]["json_schema"]["schema"] == SCHEMA
