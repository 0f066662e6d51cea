"""Token counts: exact by a tokenizer, or labelled as estimated."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.text.t5_tokens import LIMITS, TokenStats, estimate, token_counter


@pytest.fixture
def tokenizer_json(tmp_path: Path) -> Path:
    """A tokenizer like T5's (unigram, with end of sequence), which by default truncates to 4 and pads to 8 tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("▁", -2.0), ("▁slow", -3.0), ("▁piano", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_a_tokenizer_counts_whole_captions(tokenizer_json: Path) -> None:
    for given_as in (tokenizer_json, tokenizer_json.parent):
        counter = token_counter(str(given_as))
        assert counter.is_exact
        assert counter.count("slow piano slow piano slow") == 6


def test_an_estimate_is_labelled() -> None:
    stats = TokenStats(counter=token_counter(None))
    stats.add("word " * 200, "song.wav")
    assert stats.as_json()["is_estimate"] is True
    assert stats.beyond == {"Stable Audio Open": 1, "T5": 0}
    line, where = stats.lines()
    assert where == "  song.wav: 201 tokens"
    assert "estimated" in line
    assert "128 tokens of Stable Audio Open" in line


def test_there_are_no_lines_where_all_captions_fit(tokenizer_json: Path) -> None:
    stats = TokenStats(counter=token_counter(str(tokenizer_json)))
    stats.add("slow piano")
    assert stats.lines() == []
    assert stats.longest == 3


@pytest.mark.parametrize(
    ("words", "tokens"),
    # As many as by T5's own vocabulary, with end of sequence, except for the last: long words vary.
    [("A slow piano piece.", 6), ("", 1), ("the music is calm", 5), ("contrapuntal orchestration", 5)],
)
def test_the_estimate(words: str, tokens: int) -> None:
    assert estimate(words) == tokens


@given(st.text(), st.text())
def test_more_text_never_has_fewer_tokens(one: str, other: str) -> None:
    assert estimate(f"{one} {other}") >= max(estimate(one), estimate(other))


@pytest.mark.parametrize("content", ["{}", "no json", ""])
def test_an_invalid_tokenizer_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match="is not a tokenizer"):
        token_counter(str(tmp_path / "tokenizer.json"))


def test_a_file_of_another_type_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"is not a tokenizer\.json"):
        token_counter(str(tmp_path / "notes.txt"))


def test_without_transformers_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ConfigError, match="not installed") as raised:
        token_counter("t5-base")
    assert "pip install transformers" in raised.value.hint


def test_the_limits_are_those_of_the_trainers() -> None:
    assert LIMITS == {"Stable Audio Open": 128, "T5": 512}
