"""Engine `remote` against an endpoint that misbehaves: each fault is a clear outcome, and nothing is lost."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

from musicflamingo_cli.audio.clip import prepared
from musicflamingo_cli.captioning.captioner import open_captioner
from musicflamingo_cli.config import Settings, load_settings
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.engines import open_engine
from musicflamingo_cli.engines.observer import TextObserver
from musicflamingo_cli.engines.pool import member as member_module
from musicflamingo_cli.engines.remote import engine as remote
from musicflamingo_cli.engines.remote import replies
from musicflamingo_cli.engines.remote.engine import RemoteEngine
from musicflamingo_cli.errors import (
    AnswerCancelledError,
    ConfigError,
    EngineError,
    FailureKind,
    ModelError,
    StoppedError,
    TooLongError,
)
from musicflamingo_cli.models.endpoints import endpoints_of, key_file, offer_of, parse_endpoint, resolve_remote
from musicflamingo_cli.models.model import RemoteModel
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.system.http import HttpReply
from musicflamingo_cli.types import MAX_SECONDS, Answer, Clip, Failure, Outcome, Prompt, Sampling, Turn, Workload
from tests.conftest import MakeWav
from tests.fakes.endpoint import GOOD, FakeEndpoint, make_certificate

PROMPTS = [Prompt(preset=name, text=f"{name}?", max_tokens=24, system="Be brief.") for name in ("full", "brief")]
PRESETS = [Preset("full", "Describe it."), Preset("brief", "Be brief.")]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(member_module, "PAUSES", (0.05, 0.1))
    monkeypatch.delenv("MUSICFLAMINGO_API_KEY", raising=False)


@pytest.fixture
def clip(make_wav: MakeWav) -> Iterator[Clip]:
    with prepared(make_wav(seconds=3)) as clip:
        yield clip


def engine_for(fake: FakeEndpoint, timeout: float = 20.0) -> RemoteEngine:
    settings = Settings(endpoint=fake.url, timeout=timeout)
    engine = RemoteEngine(parse_endpoint(fake.url), settings, resolve_remote(settings))
    engine.ping()
    return engine


def ask(fake: FakeEndpoint, clip: Clip, timeout: float = 20.0) -> list[Answer | Failure]:
    return list(engine_for(fake, timeout).describe(clip, PROMPTS, Sampling(seed=7)))


def ask_streamed(
    fake: FakeEndpoint, clip: Clip, on_text: Callable[[str], None], history: tuple[Turn, ...] = ()
) -> Answer | Failure:
    """The answer to one question, whose pieces ``on_text`` gets."""
    (result,) = engine_for(fake).describe(
        clip, [replace(PROMPTS[0], history=history)], Sampling(), TextObserver(on_text)
    )
    return result


def test_pieces_arrive_as_the_endpoint_makes_them(clip: Clip) -> None:
    pieces: list[str] = []
    with FakeEndpoint(streams=True) as fake:
        result = ask_streamed(fake, clip, pieces.append)
    assert pieces == list(fake.pieces)
    assert isinstance(result, Answer)
    assert (result.text, result.hit_limit, result.answer_tokens) == ("".join(pieces), False, 9)
    assert result.audio_tokens == clip.trimmed_tokens
    assert fake.chats[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(("word", "requests"), [("good", 1), ("unstreamed", 2)])
def test_an_endpoint_that_does_not_stream_answers_at_once(clip: Clip, word: str, requests: int) -> None:
    pieces: list[str] = []
    with FakeEndpoint([word, word]) as fake:
        engine = engine_for(fake)
        for _ in range(2):
            (result,) = engine.describe(clip, PROMPTS[:1], Sampling(), TextObserver(pieces.append))
            assert isinstance(result, Answer), result
    assert pieces == [GOOD, GOOD]
    assert len(fake.chats) == requests + 1, "a refusal of streaming is remembered"


@pytest.mark.parametrize("word", ["cut", "gave up", "no events"])
def test_a_stream_that_breaks_off_is_tried_again(clip: Clip, word: str) -> None:
    pieces: list[str] = []
    with FakeEndpoint([word], streams=True) as fake:
        result = ask_streamed(fake, clip, pieces.append)
    assert isinstance(result, Answer), result
    assert result.text == "".join(fake.pieces)
    assert pieces[-4:] == list(fake.pieces)
    assert len(fake.chats) == 2
    with FakeEndpoint([word] * 9, streams=True) as fake:
        failure = ask_streamed(fake, clip, pieces.append)
    assert isinstance(failure, Failure)
    assert fake.url in failure.reason


@pytest.mark.parametrize("error", [AnswerCancelledError("enough"), ConnectionResetError("the browser left")])
def test_what_the_reader_raises_ends_the_answer(clip: Clip, error: Exception) -> None:
    def fail(text: str) -> None:
        raise error

    for streams in (True, False):
        with FakeEndpoint(streams=streams) as fake:
            with pytest.raises(type(error), match=str(error)):
                ask_streamed(fake, clip, fail)
            assert len(fake.chats) == 1, "it is no fault of the endpoint"


def test_earlier_turns_are_text_and_no_audio(clip: Clip) -> None:
    """A model that got no audio is noticed however long the conversation is."""
    turns = (Turn("Which key?", "It is in D minor. " * 100),)
    with FakeEndpoint(tokens=250) as fake:
        result = ask_streamed(fake, clip, lambda text: None, turns)
    assert isinstance(result, Answer), result
    assert [message["role"] for message in fake.chats[0]["messages"]] == ["system", "user", "assistant", "user"]
    assert result.audio_tokens is not None
    assert result.audio_tokens < clip.trimmed_tokens


def test_the_request_holds_audio_first_and_all_settings(clip: Clip) -> None:
    with FakeEndpoint() as fake:
        results = ask(fake, clip)
    assert [type(result) for result in results] == [Answer, Answer]
    chat = fake.chats[0]
    system, user = chat["messages"]
    assert system["role"] == "system"
    assert [part["type"] for part in user["content"]] == ["input_audio", "text"]
    assert user["content"][1]["text"] == "full?"
    assert (chat["seed"], chat["temperature"], chat["top_p"], chat["max_tokens"]) == (7, 0.7, 0.9, 24)
    assert chat["repeat_penalty"] == chat["repetition_penalty"] == 1.05
    audio = user["content"][0]["input_audio"]
    assert audio["format"] == "flac"
    sent, rate = soundfile.read(io.BytesIO(base64.b64decode(audio["data"])))
    local, _ = soundfile.read(clip.path)
    assert rate == 16_000
    assert abs(sent - local).max() < 1 / 32000
    assert fake.chats[0]["messages"][1]["content"][0] == fake.chats[1]["messages"][1]["content"][0]


def test_wav_is_sent_where_flac_is_not_taken(clip: Clip) -> None:
    with FakeEndpoint(takes_flac=False) as fake:
        results = ask(fake, clip)
    assert [type(result) for result in results] == [Answer, Answer]
    forms = [chat["messages"][1]["content"][0]["input_audio"]["format"] for chat in fake.chats]
    assert forms == ["flac", "wav", "wav"]


@pytest.mark.parametrize("word", ["busy", "error:500", "error:503", "half", "text", "shape", "null"])
def test_what_may_go_away_is_tried_again(word: str, clip: Clip) -> None:
    with FakeEndpoint([word]) as fake:
        results = ask(fake, clip)
    assert [result.text for result in results if isinstance(result, Answer)] == [GOOD, GOOD]
    assert len(fake.chats) == 3


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("error:500", "answered 500: it broke"),
        ("half", "peer closed connection|incomplete"),
        ("text", "not JSON"),
        ("shape", "not a chat completion"),
        ("busy", "answered 429: too many requests"),
    ],
)
def test_what_does_not_go_away_is_a_failure(word: str, reason: str, clip: Clip) -> None:
    with FakeEndpoint([word] * 4) as fake:
        first, second = ask(fake, clip)
    assert isinstance(first, Failure)
    assert isinstance(second, Answer)
    assert any(part in first.reason for part in reason.split("|")), first.reason
    assert first.kind.is_transient
    assert first.hint
    assert len(fake.chats) == 5


def test_retry_after_is_kept(clip: Clip) -> None:
    with FakeEndpoint(["busy:1"]) as fake:
        ask(fake, clip)
    assert 1.0 <= fake.times[1] - fake.times[0] < 2.5


@pytest.mark.parametrize("value", ["\u00b2", "soon", "Mon, 01 Jan 2030 00:00:00 +99999999999999999", ""])
def test_a_wrong_retry_after_is_none(value: str) -> None:
    assert replies.retry_after(HttpReply(429, {"retry-after": value}, b"")) is None


def test_a_message_that_is_no_text_can_be_printed() -> None:
    assert replies.message_in(b'{"error": {"message": "bad \\ud800 audio"}}').encode() == b"bad ? audio"


def test_no_waiting_beyond_the_budget(clip: Clip) -> None:
    started = time.monotonic()
    with FakeEndpoint(["busy:3600"]) as fake:
        first, second = ask(fake, clip)
    assert isinstance(first, Failure)
    assert "429" in first.reason
    assert isinstance(second, Answer)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("word", ["slow", "hang"])
def test_a_slow_server_ends_at_the_limit(word: str, clip: Clip) -> None:
    started = time.monotonic()
    with FakeEndpoint([word] * 9) as fake:
        first, second = ask(fake, clip, timeout=1.0)
    assert isinstance(first, Failure)
    assert isinstance(second, Failure)
    assert first.kind == "timeout"
    assert "--timeout" in first.hint
    assert time.monotonic() - started < 5


def test_a_wrong_request_is_not_repeated(clip: Clip) -> None:
    with FakeEndpoint(["error:404"]) as fake:
        first, _ = ask(fake, clip)
    assert isinstance(first, Failure)
    assert len(fake.chats) == 2


def test_redirects_and_endless_answers_are_refused(clip: Clip) -> None:
    with FakeEndpoint() as other, FakeEndpoint([f"redirect:{other.url}/chat/completions", "huge"]) as fake:
        first, second = ask(fake, clip)
        assert other.chats == []
    assert isinstance(first, Failure)
    assert "307" in first.reason
    assert isinstance(second, Failure)
    assert "16 MiB" in second.reason


def test_a_clip_beyond_the_context_is_the_clips_fault(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeEndpoint() as fake:
        engine = engine_for(fake)
        message = b'{"error": {"message": "the request exceeds the available context size"}}'
        reply = HttpReply(400, {}, message)
        monkeypatch.setattr(type(engine._endpoint), "send", lambda *arguments: reply)
        with pytest.raises(TooLongError):
            list(engine.describe(clip, PROMPTS, Sampling()))


REFUSALS = {
    "40 s of audio and the answer need 36661 tokens, the context holds 32768": "too long",
    "the request exceeds the available context size": "too long",
    "`input_audio.format` must be wav or mp3": "as WAV",
    "Failed to load image or audio file": "as WAV",
    "Invalid or unsupported audio file.": "as WAV",
    "input_audio only supports wav": "as WAV",
    "audio must be wav or mp3": "as WAV",
    "Only wav and mp3 are supported": "as WAV",
    "audio could not be loaded": "as WAV",
    "No models loaded": "engine",
    "Failed to load model": "engine",
    "there is no audio": "engine",
    "no information about this": "engine",
}


@pytest.mark.parametrize("message", REFUSALS)
def test_what_a_refusal_means(message: str, clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeEndpoint() as fake:
        engine, sent = engine_for(fake), list[str]()

        def refuse(endpoint: Any, method: str, path: str, body: dict[str, Any], *more: Any) -> HttpReply:
            sent.append(body["messages"][-1]["content"][0]["input_audio"]["format"])
            return HttpReply(400, {}, json.dumps({"error": {"message": message}}).encode())

        monkeypatch.setattr(type(engine._endpoint), "send", refuse)
        try:
            first, *_ = list(engine.describe(clip, PROMPTS, Sampling()))
            assert isinstance(first, Failure)
            meant = "as WAV" if "wav" in sent else first.kind
        except TooLongError:
            meant = "too long"
        assert meant == REFUSALS[message]
        monkeypatch.undo()
        list(engine.describe(clip, PROMPTS, Sampling()))
        assert fake.chats[0]["messages"][-1]["content"][0]["input_audio"]["format"] == "flac", "WAV was refused, too"


def test_a_prompt_that_does_not_fit_fails_alone(clip: Clip) -> None:
    with FakeEndpoint(["too long"]) as fake:
        results = ask(fake, clip)
    assert sorted(type(each).__name__ for each in results) == ["Answer", "Failure"]
    (failure,) = (each for each in results if isinstance(each, Failure))
    assert failure.kind is FailureKind.TOO_LONG


def test_a_pause_ends_when_the_engine_is_closed(clip: Clip) -> None:
    with FakeEndpoint(["busy:15"]) as fake:
        engine = engine_for(fake, timeout=60)
        threading.Timer(0.5, engine.close).start()
        started = time.monotonic()
        with pytest.raises(StoppedError):
            list(engine.describe(clip, PROMPTS, Sampling()))
    assert time.monotonic() - started < 5


def caption(fake: FakeEndpoint, audio: Path, **more: object) -> Outcome:
    settings = replace(Settings(endpoint=fake.url, retries=0, timeout=20), **more)  # type: ignore[arg-type]
    with open_captioner(settings, Workload(1, 2)) as captioner:
        track = track_for(audio)
        return captioner.caption(track, PRESETS, {}, save=True)


def test_the_provenance_names_model_and_endpoint_and_no_secret(
    make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSICFLAMINGO_API_KEY", "sk-secret")
    audio = make_wav(seconds=3)
    with FakeEndpoint(key="sk-secret") as fake:
        outcome = caption(fake, audio)
    assert not outcome.failures
    assert set(fake.keys) == {"Bearer sk-secret"}
    text = audio.with_suffix(".INFO").read_text()
    assert "sk-secret" not in text
    made = read_sidecar(audio.with_suffix(".INFO"))["music_flamingo_provenance"]["full"]
    assert (made["model"], made["engine"], made["endpoint"]) == ("music-flamingo", "remote", fake.url)
    assert "heard" not in made
    assert "model_identity" not in made


@pytest.mark.parametrize("status", [401, 400, 500])
def test_a_key_that_an_endpoint_quotes_is_not_shown(
    status: int, clip: Clip, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MUSICFLAMINGO_API_KEY", "sk-secret")
    with caplog.at_level(logging.DEBUG), FakeEndpoint([f"echo:{status}"] * 8) as fake:
        results = ask(fake, clip)
    assert len(results) == 2
    for failure in results:
        assert isinstance(failure, Failure)
        assert f"answered {status}: wrong: Bearer [key]" in failure.reason
    assert "sk-secret" not in f"{results} {caplog.text}"


def test_the_provenance_says_where_hearing_is_not_proven(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=3)
    with FakeEndpoint(tokens=None) as fake:
        outcome = caption(fake, audio)
    assert not outcome.failures
    made = read_sidecar(audio.with_suffix(".INFO"))["music_flamingo_provenance"]["full"]
    assert made["heard"] == "not reported"


def test_audio_that_did_not_arrive_is_noticed(make_wav: MakeWav) -> None:
    audio = make_wav(seconds=20)
    with FakeEndpoint(tokens=60) as fake:  # text and template only: 20 s would be 500 tokens
        outcome = caption(fake, audio)
    assert {failure.kind for failure in outcome.failures} == {"not heard"}
    assert not audio.with_suffix(".INFO").exists()


def test_a_wrong_key_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeEndpoint(key="right") as fake, pytest.raises(ConfigError, match="refuses the key") as error:
        resolve_remote(Settings(endpoint=fake.url))
    assert "MUSICFLAMINGO_API_KEY" in error.value.hint
    assert str(key_file()) in error.value.hint


def test_nobody_there_is_one_message() -> None:
    with pytest.raises(ModelError, match="no endpoint can be reached"):
        resolve_remote(Settings(endpoint="http://127.0.0.1:9/v1"))


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://user:sk-secret@host:port"])
def test_a_proxy_that_cannot_be_used_is_one_message(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ModelError, match="the proxy of the environment cannot be used") as error:
        resolve_remote(Settings(endpoint="https://captions.example.org"))
    assert "sk-secret" not in str(error.value)


def test_a_host_that_has_no_name_is_one_message() -> None:
    with pytest.raises(ModelError, match="no endpoint can be reached"):
        resolve_remote(Settings(endpoint=f"https://{'a' * 64}.example.org https://a..example.org"))


def test_a_deep_list_of_models_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = parse_endpoint("http://127.0.0.1:9")
    monkeypatch.setattr(type(endpoint), "send", lambda *arguments: HttpReply(200, {}, b"[" * 200_000))
    with pytest.raises(ModelError, match="offers no model"):
        offer_of(endpoint)


@pytest.mark.parametrize("seconds", ["NaN", "-5", "1e999", "0", "true"])
def test_limits_that_cannot_be_are_not_taken(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = parse_endpoint("http://127.0.0.1:9")
    body = f'{{"data": [{{"id": "m", "meta": {{"n_ctx": -5, "max_seconds": {seconds}, "slots": 1}}}}]}}'.encode()
    monkeypatch.setattr(type(endpoint), "send", lambda *arguments: HttpReply(200, {}, body))
    model = offer_of(endpoint).model
    assert 1 <= model.max_seconds <= MAX_SECONDS
    assert model.context_length == 32768


def test_one_of_two_may_be_away(clip: Clip) -> None:
    with FakeEndpoint() as fake:
        settings = Settings(endpoint=f"http://127.0.0.1:9/v1 {fake.url}", timeout=20)
        engine, _ = open_engine(settings, resolve_remote(settings), Workload(9, 2, 9))
        results = list(engine.describe(clip, PROMPTS, Sampling()))
        engine.close()
    assert [type(result) for result in results] == [Answer, Answer]
    assert [result.provenance["endpoint"] for result in results if isinstance(result, Answer)] == [fake.url] * 2


def test_endpoints_must_offer_one_model() -> None:
    with (
        FakeEndpoint(model="a") as first,
        FakeEndpoint(model="b") as second,
        pytest.raises(ConfigError, match="different models"),
    ):
        resolve_remote(Settings(endpoint=f"{first.url} {second.url}"))


def test_a_wrong_certificate_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: Clip
) -> None:
    monkeypatch.setenv("MUSICFLAMINGO_API_KEY", "sk-secret")
    with FakeEndpoint(certificate=make_certificate(tmp_path)) as fake:
        with pytest.raises(ModelError, match="CERTIFICATE_VERIFY_FAILED"):
            resolve_remote(Settings(endpoint=fake.url))
        assert fake.keys == []
        engine = RemoteEngine(
            parse_endpoint(fake.url), Settings(timeout=5), resolve_remote(Settings(endpoint=fake.url, insecure=True))
        )
        started = time.monotonic()
        result = next(iter(engine.describe(clip, PROMPTS, Sampling())))
        assert isinstance(result, Failure)
        assert "SSL_CERT_FILE" in result.hint
        assert time.monotonic() - started < 2, "it is not tried again"
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert resolve_remote(Settings(endpoint=fake.url)).name == "music-flamingo"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/v1",
        "ftp://127.0.0.1",
        "127.0.0.1:8080",
        "https://user:sk-secret@example.org",
        "https://example.org/v1?key=sk-secret",
        "https://example.org/v1#sk-secret",
        "https://me:sk-secret/x@example.org",
        "https://[::1",
        "http://localhost.example.org",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_endpoint(url)
    assert "sk-secret" not in f"{error.value} {error.value.hint}"


def test_urls_are_completed() -> None:
    assert parse_endpoint("https://example.org").url == "https://example.org/v1"
    assert parse_endpoint("https://example.org:8443/api/v2/").url == "https://example.org:8443/api/v2"
    assert parse_endpoint("https://example.org/v1/chat/completions").url == "https://example.org/v1"
    assert parse_endpoint("http://[::1]:80").url == "http://[::1]:80/v1"
    assert parse_endpoint("http://10.0.0.1", insecure=True).url == "http://10.0.0.1/v1"
    assert "sk" not in repr(parse_endpoint("https://example.org"))


def test_the_key_file_must_be_private(monkeypatch: pytest.MonkeyPatch) -> None:
    file = key_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("https://example.org/v1: sk-file\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="read by others") as error:
        parse_endpoint("https://example.org")
    assert "sk-file" not in str(error.value)
    file.chmod(0o600)
    monkeypatch.setenv("MUSICFLAMINGO_API_KEY", "sk-environment")
    assert parse_endpoint("https://example.org").key == "sk-file"
    assert parse_endpoint("https://other.example.org").key == "sk-environment"


def test_a_dataset_names_no_endpoint(tmp_path: Path) -> None:
    (tmp_path / "musicflamingo-config.yaml").write_text("insecure: true\n")
    with pytest.raises(ConfigError, match="may not name"):
        load_settings({}, dataset=tmp_path)


def test_a_permanent_fault_of_the_engine_keeps_its_type(clip: Clip) -> None:
    engine = RemoteEngine(parse_endpoint("http://127.0.0.1:9"), Settings(timeout=5), resolve_with_fake())
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9"):
        engine.ping()


def resolve_with_fake() -> RemoteModel:
    with FakeEndpoint() as fake:
        return offer_of(endpoints_of(Settings(endpoint=fake.url))[0]).model
