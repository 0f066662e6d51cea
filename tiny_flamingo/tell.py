"""Stage two, ``python -m tiny_flamingo.tell FOLDER``: the language model learns to say what the encoder heard.

The encoder is done; what it makes of some thousand songs is computed once and kept. Every one of its output tokens
knows all labels (hear.py asks them so), therefore a few of them will do at first, standing where they would stand
among all of one to eight windows: distances are learned at a fifth of the cost. The last steps see whole windows, as
the product feeds them. It can begin while the encoder still learns windows, over what it makes of pieces
(``--hear piece``), and go on from there (``--start``).
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AudioFlamingo3ForConditionalGeneration, PreTrainedTokenizerFast

from musicflamingo_cli.models.tiny_checkpoint import END, END_OF_TEXT, SOUND, START
from tiny_flamingo import captions, data, music, tokens
from tiny_flamingo.hear import SHAPE, Ears, load_ears
from tiny_flamingo.learning import Learner
from tiny_flamingo.mel import BINS
from tiny_flamingo.model import WIDTH, config, hear, new_model

SONGS = 3000
FEW = (48, 200)  # audio tokens of an example at first
WINDOWS = (1, 1, 1, 1, 2, 3, 5, 8)  # how many of 30 s a track may have, one of these at random
WINDOW_TOKENS = 750
LABELS_SHARE = 0.3  # of a label's head in a projected token, against all that is in it
# One attribute a sentence: half of the examples, and most of what is learned last.
SHORT = ("tempo", "key", "lead", "bass", "drums", "drums", "drums", "sections", "sections", "sections")
SILENT = 0.3  # share of the longer tracks that have a silent window
STEPS, WHOLE_STEPS = 3000, 300
BATCH, WHOLE_BATCH = 32, 12
RATE = 2e-3


@dataclass(frozen=True, slots=True)
class Heard:
    """What the encoder made of songs: (songs, tokens, width) in half precision, on disk; and of silence."""

    outputs: np.memmap
    silence: np.ndarray  # (some, tokens, width)
    labels: tuple[dict[str, Any], ...]  # what the heads hear in each song

    def song(self, index: int) -> music.Song:
        return music.Song(**self.labels[index])


def listen(ears: Ears, path: Path, first: int, count: int, which: data.Shape) -> Heard:
    """Run the encoder over songs, or go on where an earlier call stopped."""
    shape = (count, round(25 * which.window), WIDTH)
    done_file = path.with_suffix(".done")
    done = int(done_file.read_text()) if done_file.exists() else 0
    outputs = np.memmap(path, np.float16, "r+" if path.exists() else "w+", shape=shape)
    songs = data.Music(which, first, count)
    with torch.inference_mode():
        for start in range(done, count, 10):
            mel = torch.stack([songs[index][0] for index in range(start, min(count, start + 10))])
            outputs[start : start + len(mel)] = hear(ears.tower, mel)[1].numpy().astype(np.float16)
            done_file.write_text(str(start + len(mel)))
        # Silence beside a song is the song's loudest spot less 8 (mel.py's floor), scaled: about -1.2 to -0.2.
        levels = torch.linspace(-1.2, -0.2, 8)[:, None, None].expand(-1, BINS, round(100 * which.window))
        silence = hear(ears.tower, levels.contiguous())[1].numpy().astype(np.float16)
    return Heard(outputs, silence, tuple(labels_heard(ears, row) for row in outputs))


@torch.inference_mode()
def labels_heard(ears: Ears, outputs: np.ndarray) -> dict[str, Any]:
    """What the encoder's heads say of a song, all its tokens together.

    Sentences are learned from this, not from the truth: where the encoder errs, in one of twenty songs for drums, a
    language model could only learn the song by heart. It did, and then erred in more of those that it had never seen.
    """
    guesses = ears.heads.split(torch.from_numpy(outputs.astype(np.float32))[None])
    best = {name: int(logits[0].softmax(-1).mean(0).argmax()) for name, logits in guesses.items()}
    return {name: music.ATTRIBUTES[name][index] for name, index in best.items()}


def new_flamingo(ears: Ears, tokenizer: PreTrainedTokenizerFast) -> AudioFlamingo3ForConditionalGeneration:
    """The whole model, with the trained encoder in it."""
    sound, end, pad = tokenizer.convert_tokens_to_ids([SOUND, END, END_OF_TEXT])
    model = new_model(config(len(tokenizer), sound, end, pad, encoder_layers=len(ears.tower.layers)))
    model.model.audio_tower.load_state_dict(ears.tower.state_dict())
    return model


@torch.no_grad()
def tell_labels(model: AudioFlamingo3ForConditionalGeneration, ears: Ears, heard: Heard) -> None:
    """Let the projector's least used units begin as the heads that tell the labels.

    Bass and drums lie in weak directions of what the encoder gives (the heads' weights are large for them): a language
    model that sees tempo, key and lead at once goes on guessing these for a thousand steps.
    """
    projector, labels = model.model.multi_modal_projector, ears.heads.labels
    some = torch.from_numpy(heard.outputs[:200, ::50].astype(np.float32)).flatten(0, 1)
    used = F.gelu(projector.linear_1(some)).std(dim=0) * projector.linear_2.weight.norm(dim=0)
    least = used.argsort()[: labels.out_features]
    spread = projector(some).std()
    projector.linear_1.weight[least], projector.linear_1.bias[least] = labels.weight, labels.bias
    told = F.gelu(labels(some)).std(dim=0).clamp(min=0.1)
    columns = torch.randn(projector.linear_2.out_features, labels.out_features)
    projector.linear_2.weight[:, least] = columns * spread * LABELS_SHARE / told


class Teller(nn.Module):
    """Projector and language model over the encoder's kept outputs."""

    def __init__(self, model: AudioFlamingo3ForConditionalGeneration) -> None:
        super().__init__()
        self.projector = model.model.multi_modal_projector
        self.language = model.model.language_model
        self.head = model.lm_head

    def forward(self, before: Tensor, audio: Tensor, places: Tensor, after: Tensor) -> Tensor:
        """Logits of ``after``'s positions: (batch, after, vocabulary).

        ``places`` says where among a track's audio tokens the given ones stand, and last how many the track has.
        """
        embed = self.language.get_input_embeddings()
        inputs = torch.cat([embed(before), self.projector(audio), embed(after)], dim=1)
        start, end = before.shape[1], before.shape[1] + int(places[-1])
        positions = torch.cat([torch.arange(start), start + places[:-1], end + torch.arange(after.shape[1])])
        # With a mask given: without one, transformers takes a gap in the positions for the start of another text.
        everything = torch.ones(inputs.shape[:2], dtype=torch.long)
        states = self.language(
            inputs_embeds=inputs, position_ids=positions[None], attention_mask=everything, use_cache=False
        ).last_hidden_state
        return self.head(states[:, -after.shape[1] :])


def example(
    tokenizer: PreTrainedTokenizerFast, asked: dict[str, list[str]], song: music.Song, draw: random.Random
) -> tuple[list[int], int]:
    """Tokens after the audio, and how many of them are the question's."""
    kind = draw.choice(SHORT if draw.random() < 0.5 else list(asked))
    question = f"{draw.choice(asked[kind])}{END}\n{START}assistant\n"
    answer = f"{captions.caption(song, kind, draw)}{END}"
    question_ids, answer_ids = tokenizer(question)["input_ids"], tokenizer(answer)["input_ids"]
    return question_ids + answer_ids, len(question_ids)


def places(draw: random.Random, whole: bool) -> Tensor:
    """Where audio tokens stand among all of their track's, in order; and how many it has."""
    if whole:
        return torch.arange(WINDOW_TOKENS + 1)
    there = WINDOW_TOKENS * draw.choice(WINDOWS)
    return torch.tensor([*sorted(draw.sample(range(there), draw.randint(*FEW))), there])


def track_of(heard: Heard, index: int, where: Tensor, draw: random.Random) -> Tensor:
    """A song's audio tokens at these places of a track that repeats it, window for window; one may be silent."""
    places, windows = where[:-1].numpy(), int(where[-1]) // WINDOW_TOKENS
    there = heard.outputs.shape[1]
    audio = heard.outputs[index][places % there].astype(np.float32)
    if windows > 1 and draw.random() < SILENT:
        silent = places // WINDOW_TOKENS == draw.randrange(windows)
        audio[silent] = heard.silence[draw.randrange(len(heard.silence))][places[silent] % there]
    return torch.from_numpy(audio)


def batch(
    heard: Heard, tokenizer: PreTrainedTokenizerFast, asked: dict[str, list[str]], seed: int, whole: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(audio, its places, text after it, targets): targets are -100 but for the answers."""
    draw = random.Random(seed)
    size = WHOLE_BATCH if whole else BATCH
    where = places(draw, whole)
    audio, texts = [], []
    for _ in range(size):
        index = draw.randrange(len(heard.outputs))
        audio.append(track_of(heard, index, where, draw))
        texts.append(example(tokenizer, asked, heard.song(index), draw))
    longest = max(len(text) for text, _ in texts)
    after = torch.full((size, longest), tokenizer.pad_token_id)
    targets = torch.full((size, longest), -100)
    for row, (text, question) in enumerate(texts):
        after[row, : len(text)] = torch.tensor(text)
        targets[row, question - 1 : len(text) - 1] = torch.tensor(text[question:])
    return torch.stack(audio), where, after, targets


def mean(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of the weights of runs from the same start.

    It agrees with the heads more often than any of them ("model soups", Wortsman and others, 2022).
    """
    return {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}


def weights_of(checkpoints: Sequence[Path]) -> list[dict[str, Tensor]]:
    return [torch.load(checkpoint)["teller"] for checkpoint in checkpoints]


def teach(
    teller: Teller, learner: Learner, heard: Heard, tokenizer: PreTrainedTokenizerFast, few: int, seed: int
) -> None:
    """All of the learner's steps, the first ``few`` of them over a few tokens, the others over whole windows."""
    asked = tokens.prompts()
    before = torch.tensor(tokenizer(f"{START}user\n{SOUND}")["input_ids"])
    average, started = 0.0, time.monotonic()
    while learner.step < learner.steps:
        audio, where, after, targets = batch(heard, tokenizer, asked, seed + learner.step, whole=learner.step >= few)
        logits = teller(before.expand(len(audio), -1), audio, where, after)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
        learner.learn(loss)
        average = loss.item() if not average else 0.98 * average + 0.02 * loss.item()
        if learner.step % 50 == 0:
            print(f"tell {learner.step} {time.monotonic() - started:.0f}s loss {average:.4f}", flush=True)
        learner.save_sometimes()


def train(chosen: argparse.Namespace) -> None:
    folder, stage, seed = chosen.folder, chosen.hear, chosen.run * music.RUN_SEEDS
    torch.manual_seed(0)
    tokenizer = tokens.load_or_train(folder)
    ears = load_ears(folder / f"{stage}.pt").eval()
    heard = listen(ears, folder / f"heard-{stage}.f16", music.TRAIN_SEEDS * 2 + seed, chosen.songs, SHAPE[stage])
    model = new_flamingo(ears, tokenizer)
    teller = Teller(model)
    checkpoint = folder / f"tell-{stage}.pt"
    if not checkpoint.exists() and chosen.start:
        teller.load_state_dict(mean(weights_of(chosen.start)))
    elif not checkpoint.exists():
        tell_labels(model, ears, heard)
    learner = Learner(teller, "teller", checkpoint, chosen.rate, chosen.steps + chosen.whole_steps, decay=0.05)
    teach(teller, learner, heard, tokenizer, chosen.steps, seed)
    teller.load_state_dict(mean([teller.state_dict(), *weights_of(chosen.mean_with)]))
    model.save_pretrained(folder / f"model-{stage}")
    tokenizer.save_pretrained(folder / f"model-{stage}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument(
        "--hear", choices=list(SHAPE), default="window", help="which of hear.py's stages to begin from"
    )
    options.add_argument(
        "--start", type=Path, nargs="*", default=[], help="begin with the mean of the weights of these tell-*.pt"
    )
    options.add_argument("--songs", type=int, default=SONGS)
    options.add_argument("--steps", type=int, default=STEPS)
    options.add_argument("--whole-steps", type=int, default=WHOLE_STEPS)
    options.add_argument("--rate", type=float, default=RATE, help="the highest learning rate")
    options.add_argument("--run", type=int, default=0, help="each has songs of its own (0 to 9)")
    options.add_argument(
        "--mean-with", type=Path, nargs="*", default=[], help="write the mean with these tell-*.pt of the same start"
    )
    options.add_argument("--threads", type=int, default=2)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    train(chosen)


if __name__ == "__main__":
    main()
