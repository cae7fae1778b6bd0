"""Measures what smaller weights cost: trains the demo's language model, freezes it in each dtype.

    python tools/quantisation_accuracy.py

prints the table of docs/quantisation.md. The model is trained in float32; only its recurrent layers
are frozen, the embedding and the output layer stay as they are.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import fusedrnn
from fusedrnn.cli import loop
from fusedrnn.cli import run as runs
from fusedrnn.cli.characters import default_text
from fusedrnn.cli.tasks import Source
from fusedrnn.cli.tasks.char_lm import CharLM, bits_per_character
from fusedrnn.models import CharModel

WEIGHT_DTYPES = (None, "bfloat16", "int8")


def trained(cell: str, hidden: int, layers: int, steps: int) -> tuple[CharModel, np.ndarray]:
    """Return a model trained on the demo's text, and the characters held out."""
    values = {setting.name: setting.default for setting in CharLM.settings}
    values |= {"cell": cell, "hidden": hidden, "layers": layers}
    source = Source("", Path("pydoc_data.topics"), default_text())
    data = CharLM.parse(source, values)
    task = CharLM(values, CharLM.learn(data, values))
    task.use(data)
    optimizer = fusedrnn.Adam(task.model.parameters())
    run = runs.Run(task, optimizer, str(source.path), source.fingerprint)
    for _ in tqdm(range(steps)):
        loop.update(run)
    return task.model, task.validation


def frozen_bits(model: CharModel, indices: np.ndarray, weight_dtype: str | None) -> float:
    """Evaluate the model with its recurrent layers frozen."""
    frozen = copy.copy(model)
    frozen.rnn = model.rnn.freeze(weight_dtype)
    return bits_per_character(frozen, indices)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    arguments = parser.parse_args()
    print("| cell | layer | frozen | bfloat16 | int8 |\n|---|---|---|---|---|")
    for cell in ("rnn", "gru", "lstm"):
        model, held_out = trained(cell, arguments.hidden, arguments.layers, arguments.steps)
        bits = [bits_per_character(model, held_out)]
        bits += [frozen_bits(model, held_out, dtype) for dtype in WEIGHT_DTYPES]
        row = [f"{value:.4f}" for value in bits]
        print(f"| {cell} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
