from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicflamingo_cli.errors import ConfigError, PromptError
from musicflamingo_cli.paths import built_in_prompts, user_config_dir
from musicflamingo_cli.prompts import VARIABLES, Preset, choose, fill, load_presets, prompts_files, read_presets


def write(folder: Path, text: str) -> Path:
    file = folder / "prompts.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_the_built_in_presets() -> None:
    presets = load_presets([built_in_prompts()])
    assert [preset.name for preset in choose(presets, [])] == [
        "full",
        "technical",
        "genre_mood",
        "instrumentation",
        "structure",
    ]
    assert {"brief", "very_brief", "genre_mood_inst", "rich", "lyrics"} <= set(presets)
    limits = {"full": 500, "technical": 200, "genre_mood": 150, "instrumentation": 100, "structure": 300}
    assert {name: presets[name].max_tokens for name in limits} == limits
    assert presets["full"].prompt.startswith("Describe this track in full detail - tell me the genre, tempo, and key,")


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("presets: {full: {promt: x}}", "did you mean prompt?"),
        ("preset: {full: x}", "did you mean presets?"),
        ("presets: {full: {prompt: x, max_tokens: many}}", "whole number"),
        ("presets: {full: {prompt: x, default: 3}}", "true or false"),
        ("presets: {full: {prompt: x, max_tokens: true}}", "whole number"),
        ("presets: {full: {prompt: x, max_tokens: 0}}", "1 to 4096"),
        ("presets: {full: {prompt: '  '}}", "has no prompt"),
        ("presets: {full: {prompt: 'by {artst}'}}", "did you mean artist?"),
        ("presets: {full: {prompt: 'hear <__media__> this'}}", "chat template"),
        ("presets: {full: {prompt: 'x <|im_end|>'}}", "chat template"),
        ('presets: {full: {prompt: "x\\0y"}}', "control characters"),
        ("presets: {full: {? [a] : 1}}", "cannot be read as YAML"),
        ("presets: {Full Text: x}", "lower-case letters"),
        ("presets: {provenance: x}", "provenance"),
        ("presets: {full: [x]}", "must be a text"),
        ("presets: []", "map names"),
        ("- x", "must begin with"),
        ("", "must begin with"),
        ("presets: {full: x, full: y}", "duplicate key"),
        ("presets: {full: 'x", "cannot be read as YAML"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(tmp_path: Path, yaml: str, said: str) -> None:
    file = write(tmp_path, yaml)
    with pytest.raises(ConfigError) as caught:
        read_presets(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert "prompts check" in caught.value.hint


def test_anchors_can_be_merged(tmp_path: Path) -> None:
    file = write(tmp_path, "presets:\n  a: &a {prompt: x, max_tokens: 9}\n  b: {<<: *a, prompt: y}\n")
    presets = read_presets(file)
    assert (presets["b"].prompt, presets["b"].max_tokens) == ("y", 9)


def test_later_files_override_preset_by_preset(tmp_path: Path) -> None:
    dataset = tmp_path / "data"
    write(user_config_dir(), "presets: {full: {prompt: mine, default: true}, brief: mine too}")
    dataset.mkdir()
    (dataset / "musicflamingo-prompts.yaml").write_text("presets: {full: {prompt: the dataset's}, new: n}")
    explicit = write(tmp_path, "presets: {new: named}")
    presets = load_presets(prompts_files(dataset, explicit))
    assert presets["full"].prompt == "the dataset's"
    assert presets["brief"].prompt == "mine too"
    assert presets["new"].prompt == "named"
    assert presets["technical"].origin == built_in_prompts()


def test_choosing() -> None:
    presets = {name: Preset(name, "x", default=name == "b") for name in ("a", "b", "c")}
    assert [preset.name for preset in choose(presets, [])] == ["b"]
    assert [preset.name for preset in choose(presets, ["c", "a", "c"])] == ["c", "a"]
    with pytest.raises(ConfigError, match="no preset 'd'"):
        choose(presets, ["d"])
    with pytest.raises(ConfigError, match="default: true"):
        choose({"a": Preset("a", "x")}, [])


@pytest.mark.parametrize(
    ("template", "values", "text"),
    [
        ("Plain.", {}, "Plain."),
        ("{metadata} Describe it.", {}, "Describe it."),
        (
            "{metadata} Describe it.",
            {"metadata": "This track was released in 1999."},
            "This track was released in 1999. Describe it.",
        ),
        ("A[[ {genre}]] song[[ by {artist}]].", {"artist": "Nina"}, "A song by Nina."),
        ("By {artist}. In {key}. Now tell.", {"key": "C"}, "In C. Now tell."),
        ("By {artist}.", {"artist": "Dr. John. No. 1"}, "By Dr. John. No. 1."),
        ("By {artist}.", {"artist": "a\n<__media__>{title}<|im_end|>"}, "By a {title}."),
        ("By {artist}.", {"artist": "  "}, ""),
        ("By {artist}. Now tell.", {"artist": "\u200b"}, "Now tell."),
        ("By {artist}.", {"artist": "a\0b\ud800"}, "By a b?."),
    ],
)
def test_a_missing_value_leaves_no_hole(template: str, values: dict[str, str], text: str) -> None:
    assert fill(template, values) == text


def test_nothing_left_is_an_error_that_names_what_lacks() -> None:
    with pytest.raises(PromptError, match="needs artist"):
        Preset("x", "By {artist}.").render({})


@given(st.dictionaries(st.sampled_from(VARIABLES), st.text()))
def test_values_never_bring_template_tokens_in(values: dict[str, str]) -> None:
    text = fill("".join(f"[[{{{name}}} ]]" for name in VARIABLES) + "Tell.", values)
    assert "<__" not in text
    assert "<|im_" not in text
    assert "\n" not in text


def test_the_hash_names_the_question() -> None:
    preset = Preset("x", "y")
    assert preset.template_hash == Preset("other", "y", default=True).template_hash
    assert preset.template_hash != Preset("x", "z").template_hash
    assert preset.template_hash != Preset("x", "y", max_tokens=9).template_hash


def test_a_question_for_one_line_accepts_one_word(tmp_path: Path) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(
        "presets:\n  era: {prompt: 'From which decade?', max_tokens: 20}\n  long: {prompt: Describe it.}\n"
        "  two: {prompt: Describe it., max_tokens: 20, min_words: 2}\n"
    )
    assert {name: preset.min_words for name, preset in read_presets(file).items()} == {"era": 1, "long": 3, "two": 2}


def test_a_preset_with_a_schema(tmp_path: Path) -> None:
    schema = "{type: object, properties: {genre: {type: string}}, required: [genre]}"
    file = write(tmp_path, f"presets: {{facts: {{prompt: Name the genre., schema: {schema}}}}}")
    preset = read_presets(file)["facts"]
    assert json.loads(preset.render({}).schema)["required"] == ["genre"]
    assert preset.template_hash != Preset("facts", "Name the genre.").template_hash


def test_a_schema_that_is_not_usable(tmp_path: Path) -> None:
    for schema in ("{type: text}", "text"):
        file = write(tmp_path, f"presets: {{facts: {{prompt: x, schema: {schema}}}}}")
        with pytest.raises(ConfigError, match="schema"):
            read_presets(file)
