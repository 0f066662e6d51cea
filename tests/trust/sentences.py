"""The labelled sentences, and how well claims are found in them: `python -m tests.trust.sentences` prints the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from musicflamingo_cli.trust.claims import Field, claims_in

FOLDER = Path(__file__).parent
HALVES = {"tuned on": FOLDER / "tuned.txt", "held out": FOLDER / "held_out.txt"}
NAMES = {
    "tempo": Field.TEMPO,
    "key": Field.KEY,
    "metre": Field.METRE,
    "length": Field.LENGTH,
    "genre": Field.GENRE,
    "has": Field.INSTRUMENT,
    "no": Field.ABSENT,
    "vocals": Field.VOCALS,
    "lang": Field.LANGUAGE,
    "mood": Field.MOOD,
}
_VOCALS = "vocals"  # as an instrument: the field vocals counts it


@dataclass(slots=True)
class Score:
    """Counts of one field: claims that were found rightly, found wrongly, and missed."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    @property
    def precision(self) -> float:
        """The share of the claims found that are right."""
        return self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """The share of the labelled claims that are found."""
        return self.right / max(1, self.right + self.missed)


def sentences(path: Path) -> Iterator[tuple[str, dict[Field, set[str]]]]:
    """Yield the sentences of a file with the values of each field."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if "=>" not in line:
            continue
        sentence, _, labels = line.partition(" =>")
        expected: dict[Field, set[str]] = {field: set() for field in Field}
        for label in filter(None, map(str.strip, labels.split(";"))):
            name, _, values = label.partition("=")
            expected[NAMES[name]] = {value.strip() for value in values.split(",")} - _ignored(NAMES[name])
        yield sentence, expected


def found_in(sentence: str) -> dict[Field, set[str]]:
    """What the extractor finds, in the form of the labels."""
    found: dict[Field, set[str]] = {field: set() for field in Field}
    for claim in claims_in(sentence):
        if claim.value not in _ignored(claim.field):
            found[claim.field].add(claim.value)
    return found


def _ignored(field: Field) -> set[str]:
    return {_VOCALS} if field in (Field.INSTRUMENT, Field.ABSENT) else set()


def score(path: Path, show: bool = False) -> dict[Field, Score]:
    """Count, over a file; ``show`` prints each sentence with a difference."""
    scores = {field: Score() for field in NAMES.values()}
    for sentence, expected in sentences(path):
        found = found_in(sentence)
        for field, counts in scores.items():
            counts.right += len(found[field] & expected[field])
            counts.wrong += len(found[field] - expected[field])
            counts.missed += len(expected[field] - found[field])
            if show and found[field] != expected[field]:
                print(f"{field}: {sorted(found[field])}, not {sorted(expected[field])}: {sentence}")
    return scores


def main() -> None:
    for name, path in HALVES.items():
        print(f"{name}: {sum(1 for _ in sentences(path))} sentences")
        for field, counts in score(path).items():
            labelled = counts.right + counts.missed
            print(f"  {field:10} {labelled:4} labelled  precision {counts.precision:.3f}  recall {counts.recall:.3f}")


if __name__ == "__main__":
    main()
