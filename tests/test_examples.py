"""The examples in Python, small: the numbers at their ends are far from what comes by chance."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import fusedrnn as fr
from examples import keras_to_fusedrnn
from examples.jax import characters
from examples.pytorch import recurrent_ppo, speech_commands

ROOT = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """For arrays of this size several only wait for each other."""
    before = torch.get_num_threads(), fr.get_num_threads()
    torch.set_num_threads(1)
    fr.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    fr.set_num_threads(before[1])


# Keras' own get_weights(), of a variable of JAX.
@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
def test_a_model_of_keras_is_served_with_its_own_numbers() -> None:
    assert keras_to_fusedrnn.main(["--epochs", "1", "--units", "8"]) < 1e-5


def test_ppo_remembers() -> None:
    words = ["--updates", "10", "--episodes", "64", "--longest", "3"]
    assert recurrent_ppo.main(words) > 0.75  # without memory 0.5


def test_commands_are_recognised() -> None:
    words = ["--steps", "75", "--recordings", "128", "--hidden", "32"]
    assert speech_commands.main(words) > 0.4  # always the same one: 0.125


def test_characters_are_foretold(tmp_path: Path) -> None:
    numbers = random.Random(0)
    words = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"]
    text = " ".join(numbers.choice(words) for _ in range(3000))
    (tmp_path / "text").write_text(text, encoding="utf-8")
    small = ["--text", str(tmp_path / "text"), "--passes", "3", "--hidden", "32"]
    # A word of eight, of six characters each: half a bit is to be had, and 4 without learning.
    assert characters.main(small) < 2.5


def test_the_list_has_every_example() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    listed = {link for link in links if not link.startswith("../")}
    there = {
        str(path.relative_to(ROOT))
        for kind in ("*.py", "*.c", "*.cpp", "*.rs")
        for path in ROOT.rglob(kind)
    }
    assert listed == there
