"""What the tests of `train`, `generate` and `predict` share: small data, and short runs."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from fusedrnn.__main__ import main

#: Of each task, options for a model that is trained in moments.
SMALL = {
    "char-lm": "--hidden 12 --layers 1 --embedding 8 --batch 4 --chunk 16",
    "classify": "--hidden 8 --embedding 8 --batch 16",
    "seq2seq": "--hidden 12 --embedding 8 --batch 16",
    "forecast": "--hidden 8 --window 24 --horizon 6 --season 12 --batch 8",
}
NAMES = {"char-lm": "text.txt", "classify": "films.csv", "seq2seq": "pairs.tsv",
         "forecast": "hours.csv"}  # fmt: skip


def write_data(folder: Path) -> dict[str, Path]:
    """Write a file for each task: sentences, films with negation, words to reverse, a wave."""
    rng = random.Random(0)
    words = ["the", "cat", "dog", "sees", "hears", "a", "bird", "and"]
    text = "".join(" ".join(rng.choices(words, k=6)) + ".\n" for _ in range(60))
    films = ["text,label"]
    for _ in range(120):
        good, negated = rng.random() < 0.5, rng.random() < 0.5
        word = rng.choice(["good", "great"] if good else ["bad", "poor"])
        label = "like" if good != negated else "dislike"
        films.append(f'"the film, {"not " if negated else ""}{word}",{label}')
    pairs = []
    for _ in range(200):
        word = "".join(rng.choices("abc", k=rng.randint(1, 4)))
        pairs.append(f"{word}\t{word[::-1]}")
    noise = np.random.default_rng(0).normal(0, 0.3, 300)
    wave = 50 + 10 * np.sin(np.arange(300) * np.pi / 6) + noise
    hours = ["hour,demand", *(f"h{hour},{value:.3f}" for hour, value in enumerate(wave))]
    data = {"char-lm": text, "classify": "\n".join(films), "seq2seq": "\n".join(pairs),
            "forecast": "\n".join(hours)}  # fmt: skip
    paths = {task: folder / NAMES[task] for task in data}
    for task, path in paths.items():
        path.write_text(data[task], encoding="utf-8")
    return paths


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_data(tmp_path_factory.mktemp("data"))


def train(task: str, *arguments: object, steps: int = 6, every: int = 3) -> int:
    numbers = ["--steps", str(steps), "--every", str(every)]
    return main(["train", task, *SMALL[task].split(), *numbers, *map(str, arguments)])


def rows(folder: Path) -> list[dict[str, Any]]:
    """What metrics.json holds, without the speed, which is another one every time."""
    found = json.loads((folder / "metrics.json").read_text())
    return [{name: value for name, value in row.items() if name != "speed"} for row in found]


def arrays_of(path: Path) -> dict[str, bytes]:
    arrays = safetensors.numpy.load_file(path)
    return {name: array.tobytes() for name, array in arrays.items()}


def refused(arguments: Sequence[object], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run what is refused in one sentence, with status 2 and no results."""
    assert main([str(argument) for argument in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1, output.err
    assert message in output.err
