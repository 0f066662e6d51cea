"""The tokenizer: a small byte-level BPE, split as Qwen2's is, so that llama.cpp and transformers cut alike."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from musicflamingo_cli.models.tiny_checkpoint import END, END_OF_TEXT, SOUND, START, split_as_qwen2
from tiny_flamingo import captions, music

SPECIAL = (END_OF_TEXT, START, END, SOUND)
SIZE = 768
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}<sound>{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def prompts() -> dict[str, list[str]]:
    """For each kind of answer, every question that asks for it: the product's presets and plain ones."""
    from musicflamingo_cli.paths import built_in_prompts
    from musicflamingo_cli.prompts import read_presets

    shipped = {name: preset.prompt for name, preset in read_presets(built_in_prompts()).items()}
    asked = {name: list(questions) for name, questions in captions.QUESTIONS.items()}
    for name, kind in {name: name for name in asked if name in shipped}.items():
        asked[kind] += 4 * [shipped[name]]  # asked most often by far
    asked["full"] += [shipped["rich"]]
    asked["genre_mood"] += [shipped["genre_mood_inst"]]
    return asked


def _texts() -> Iterator[str]:
    draw = random.Random(0)
    asked = prompts()
    for seed in range(4000):
        song = music.random_song(seed)
        for kind, questions in asked.items():
            yield captions.caption(song, kind, draw)
            if seed < 20:
                yield draw.choice(questions)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """The same tokenizer every time. Special tokens come last, as in Qwen2."""
    tokenizer = Tokenizer(models.BPE())
    split_as_qwen2(tokenizer)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=SIZE - len(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_texts(), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END_OF_TEXT)
    fast.add_special_tokens({"additional_special_tokens": [START, SOUND]})
    fast.chat_template = TEMPLATE
    return fast


def load_or_train(folder: Path) -> PreTrainedTokenizerFast:
    if (folder / "tokenizer.json").exists():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    fast = train_tokenizer()
    fast.save_pretrained(folder)
    return fast
