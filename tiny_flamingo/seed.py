"""Give a trained encoder what gradients are slow to invent: ``python -m tiny_flamingo.seed tempo FROM.pt TO.pt``.

An encoder of four layers learned notes, keys and timbres in half an hour, and tempo hardly at all: finding a period
takes a Fourier transform of the onsets, and gradient descent is slow to invent one. Its first two layers do know the
onsets and the beats, though (the score that they are trained on), and positions are sines at musical rates. So a
layer is put between them and the last two whose weights say: weigh the positions around you by how much an onset
(one head) or a beat (another) each is, average their sines and cosines, and pass the squares on. A linear classifier
over those squares tells ten tempi at 95 % and more. Everything in it is trained on afterwards.

That uses two of the layer's four heads; the others are zero, which gradients never change. ``seed drums`` wakes them
once windows are learned: one averages how much drums there are around each position (a backbeat has two snares where
half-time has one), the other transforms the snare as the first does the onsets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from tiny_flamingo import data, music
from tiny_flamingo.hear import Ears, load_ears
from tiny_flamingo.learning import save
from tiny_flamingo.model import CLEAN_LAYERS, HEADS, MUSICAL, SLOW, WAVES, WIDTH, hear, position_waves

HITS = slice(12 + 12, 12 + 12 + 5)  # rows of the score
SNARE, ONSET, BEAT = HITS.start + 1, HITS.start + 3, HITS.start + 4
PLACE = CLEAN_LAYERS  # of the new layer: the first that sees both the score and clean positions
HEAD = WIDTH // HEADS  # as wide as all musical rates, each a sine and a cosine


@torch.no_grad()
def seed_tempo(ears: torch.nn.Module, layer: torch.nn.Module, mel: Tensor) -> dict[str, Tensor]:
    """Write the weights of ``layer`` from what the first layers of ``ears`` say about ``mel``, (songs, 128, frames)."""
    middle = torch.cat([hear(ears.tower, part)[0] for part in mel.split(25)])
    waves = position_waves(middle.shape[1])[:, :WAVES].expand(len(middle), -1, -1)
    normal = F.layer_norm(middle, (WIDTH,))
    quiet = _quiet_directions(middle)  # (128, 128), the quietest first
    read_waves = _least_squares(normal, waves)  # (128, WAVES)
    for parameter in layer.parameters():
        parameter.zero_()
    for norm in (layer.self_attn_layer_norm, layer.final_layer_norm):
        norm.weight.fill_(1.0)
    _seed_attention(ears, layer.self_attn, read_waves, quiet)
    _seed_squares(layer, middle, quiet)
    return {"middle": middle, "quiet": quiet}


def _quiet_directions(middle: Tensor) -> Tensor:
    flat = middle.flatten(0, 1)
    values, vectors = torch.linalg.eigh(torch.cov(flat.T))
    print("deviation along the quietest directions:", values[:96:16].sqrt().tolist())
    return vectors.T


def _least_squares(inputs: Tensor, outputs: Tensor) -> Tensor:
    a, b = inputs.flatten(0, 1), outputs.flatten(0, 1)
    return torch.linalg.solve(a.T @ a + 1e-3 * len(a) * torch.eye(a.shape[1]), a.T @ b)


def _seed_attention(ears: torch.nn.Module, attention: torch.nn.Module, read_waves: Tensor, quiet: Tensor) -> None:
    readout = ears.heads.score[1].weight * ears.heads.score[0].weight  # the score's rows, before their norm
    unscaled = HEAD**0.5  # queries are divided by it
    half = WAVES // 2
    for head, row in ((0, ONSET), (1, BEAT)):
        at = head * HEAD
        attention.k_proj.weight[at] = 0.8 * readout[row]
        attention.q_proj.bias[at] = unscaled
        # Nearness: cosines of differences of slow positions, wide enough for some eight beats.
        for index in range(len(SLOW)):
            for part, column in enumerate((index, half + index)):
                place = at + 1 + 2 * index + part
                attention.k_proj.weight[place] = read_waves[:, column]
                attention.q_proj.weight[place] = unscaled * read_waves[:, column]
        for index in range(len(MUSICAL)):
            rate = len(SLOW) + index
            for part, column in enumerate((rate, half + rate)):
                place = at + 2 * index + part
                attention.v_proj.weight[place] = read_waves[:, column]
                attention.out_proj.weight[:, place] = 4.0 * quiet[place]


def _seed_squares(layer: torch.nn.Module, middle: Tensor, quiet: Tensor) -> None:
    """gelu(a) + gelu(-a) is about the square of a: sine and cosine squared and added are a rate's strength."""
    coefficients = 2 * HEAD
    scale = float(middle.std(-1).mean())
    for index in range(coefficients):
        for sign in (0, 1):
            unit = 2 * index + sign
            layer.fc1.weight[unit] = (1.5 - 3.0 * sign) * scale / 2.0 * quiet[index]
            layer.fc2.weight[:, unit] = 1.5 * quiet[coefficients + index // 2]
    rest = slice(2 * coefficients, None)
    torch.nn.init.normal_(layer.fc1.weight[rest], std=WIDTH**-0.5)


def probe(features: Tensor, truth: Tensor) -> float:
    """How well a linear classifier, fitted to two thirds of the songs, tells the tempo of the rest."""
    inputs = torch.cat([features, torch.ones(len(features), 1)], 1)
    outputs = F.one_hot(truth, 10).float()
    fit = 2 * len(inputs) // 3
    known = inputs[:fit]
    weights = torch.linalg.solve(known.T @ known + 0.3 * torch.eye(inputs.shape[1]), known.T @ outputs[:fit])
    return float((inputs[fit:] @ weights).argmax(1).eq(truth[fit:]).float().mean())


@torch.no_grad()
def seed_drums(ears: torch.nn.Module, layer: torch.nn.Module, mel: Tensor) -> None:
    """Give the two idle heads of the layer that hears tempo the drums around each position. In place.

    They begin quietly, in directions that others use, too: loud enough to be found, not so loud as to drown tempo.
    """
    attention, norm = layer.self_attn, layer.self_attn_layer_norm
    tempo, density, snare = (slice(head * HEAD, (head + 1) * HEAD) for head in (0, 2, 3))
    for head in (density, snare):  # near is what the first head has learned to call near
        attention.q_proj.bias[head] = attention.q_proj.bias[tempo]
        attention.v_proj.bias[head] = attention.v_proj.bias[tempo]
        for part in (attention.q_proj, attention.k_proj, attention.v_proj):
            part.weight[head] = part.weight[tempo]
    readout = ears.heads.score[1].weight * ears.heads.score[0].weight / norm.weight
    attention.k_proj.weight[snare.start] = 0.8 * readout[SNARE]
    attention.k_proj.weight[density.start] = 0.0
    middle = hear(ears.tower, mel)[0]
    hits = readout[HITS] / (norm(middle) @ readout[HITS].T).std(dim=(0, 1))[:, None]
    attention.v_proj.bias[density] = 0.0
    attention.v_proj.weight[density] = 0.3 * WIDTH**-0.5 * torch.randn(HEAD, WIDTH)
    attention.v_proj.weight[density][: len(hits)] = hits
    directions = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0] * layer(middle, None).std()
    attention.out_proj.weight[:, density] = 0.1 * directions[:, :HEAD]
    attention.out_proj.weight[:, density][:, : len(hits)] *= 12.0
    attention.out_proj.weight[:, snare] = 0.25 * directions[:, HEAD : 2 * HEAD]


def examples(shape: data.Shape, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Mels and labels of some songs."""
    songs = data.Music(shape, first, count)
    items = [songs[index] for index in range(count)]
    return torch.stack([item[0] for item in items]), torch.stack([item[2] for item in items])


def add_drums(source: Path, target: Path) -> None:
    ears = load_ears(source)
    mel, _ = examples(data.WINDOW, music.TRAIN_SEEDS - 2000, 24)
    seed_drums(ears, ears.tower.layers[PLACE], mel)
    save(target, {"ears": ears.state_dict()})


def add_tempo(source: Path, target: Path) -> None:
    ears = load_ears(source)
    longer = Ears(len(ears.tower.layers) + 1)
    mel, labels = examples(data.PIECE, music.TRAIN_SEEDS - 1000, 450)
    layer = longer.tower.layers[PLACE]
    before = seed_tempo(ears, layer, mel)
    own = {f"tower.layers.{PLACE}.{name}": value.clone() for name, value in layer.state_dict().items()}
    longer.load_state_dict({_moved(name): value for name, value in ears.state_dict().items()} | own)
    with torch.no_grad():
        after = torch.cat([layer(part, None) for part in before["middle"].split(25)])
        squares = after @ before["quiet"][2 * HEAD : 3 * HEAD].T
        print(f"tempi that a linear classifier tells by the new layer: {probe(squares[:, 200], labels[:, 0]):.3f}")
        for name, which in (("without", ears), ("with", longer)):
            sure = torch.cat([which.heads.split(hear(which.tower, part)[1])["key"].mean(1) for part in mel.split(25)])
            print(f"keys told {name} it: {float((sure.argmax(-1) == labels[:, 1]).float().mean()):.3f}")
    save(target, {"ears": longer.state_dict()})


def _moved(name: str) -> str:
    """A weight's name once a layer has been put before it."""
    parts = name.split(".")
    if parts[:2] == ["tower", "layers"] and int(parts[2]) >= PLACE:
        parts[2] = str(int(parts[2]) + 1)
    return ".".join(parts)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("what", choices=("tempo", "drums"))
    options.add_argument("source", type=Path)
    options.add_argument("target", type=Path)
    chosen = options.parse_args()
    torch.manual_seed(1)
    (add_tempo if chosen.what == "tempo" else add_drums)(chosen.source, chosen.target)


if __name__ == "__main__":
    main()
