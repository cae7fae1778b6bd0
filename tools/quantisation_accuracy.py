"""Measures what smaller weights cost: trains the demo's language model, freezes it in each dtype.

    python tools/quantisation_accuracy.py

prints the table of docs/quantisation.md. The model is trained in float32; only its recurrent layers
are frozen, the embedding and the output layer stay as they are.
"""

from __future__ import annotations

import argparse
import copy

import numpy as np

import fusedrnn
from fusedrnn.demo.arguments import EMBEDDING, TRAINING
from fusedrnn.demo.text import Streams, Vocabulary, default_text, fingerprint, split
from fusedrnn.demo.train import Interrupt, Session, evaluate, train
from fusedrnn.models import CharModel

WEIGHT_DTYPES = (None, "bfloat16", "int8")


def trained(cell: str, hidden: int, layers: int, steps: int) -> tuple[CharModel, np.ndarray]:
    """Return a model trained on the demo's text, and the characters held out."""
    text = default_text()
    training, validation = split(text)
    vocabulary = Vocabulary.of(training)
    model = CharModel(
        len(vocabulary),
        cell=cell,
        embedding=EMBEDDING,
        hidden=hidden,
        layers=layers,
        seed=TRAINING.seed,
    )
    session = Session(
        model, vocabulary, fusedrnn.Adam(model.parameters()), TRAINING, fingerprint(text)
    )
    streams = Streams(vocabulary.encode(training), TRAINING.batch, TRAINING.chunk)
    train(session, streams, steps, Interrupt())
    return model, vocabulary.encode(validation)


def bits_per_character(model: CharModel, indices: np.ndarray, weight_dtype: str | None) -> float:
    """Evaluate the model with its recurrent layers frozen."""
    frozen = copy.copy(model)
    frozen.rnn = model.rnn.freeze(weight_dtype)
    return evaluate(frozen, indices)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    arguments = parser.parse_args()
    print("| cell | layer | frozen | bfloat16 | int8 |\n|---|---|---|---|---|")
    for cell in ("rnn", "gru", "lstm"):
        model, held_out = trained(cell, arguments.hidden, arguments.layers, arguments.steps)
        bits = [evaluate(model, held_out)]
        bits += [bits_per_character(model, held_out, dtype) for dtype in WEIGHT_DTYPES]
        row = [f"{value:.4f}" for value in bits]
        print(f"| {cell} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
