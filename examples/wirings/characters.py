"""Many to many in step: a character model, which then writes by itself.

    python examples/wirings/characters.py

An LSTM reads the text of Python's help topics, 64 characters at a time in 32 places side by side,
and says at each character what comes next; its state goes on from chunk to chunk. Afterwards it
writes, each character as it is drawn from what it says: by `step`, from the state of the one
before, with no more memory for a long text than for a short one.

In the picture: bits per character, by how many characters were read before.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from shared import arguments, picture, table, train

from fusedrnn import nn
from fusedrnn.cli.characters import Streams, Vocabulary, default_text, split, unigram_entropy
from fusedrnn.models import CharModel

CHUNK, READ = 64, 256


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    o = arguments(__doc__, given, steps=500, batch=32, hidden=256, write=240)
    before, after = split(default_text())
    vocabulary = Vocabulary.of(before)
    streams = Streams(vocabulary.encode(before), o.batch, CHUNK)
    held_out = vocabulary.encode(after)
    model = CharModel(len(vocabulary), cell="lstm", hidden=o.hidden, seed=o.seed)

    def batch(training: Any) -> tuple[Any, Any, Any]:
        inputs, targets, first = streams.at(training.step)
        return inputs, targets, None if first else training.state

    train("characters", model, batch, o, 6e-3)

    windows = held_out[: len(held_out) // (READ + 1) * (READ + 1)].reshape(-1, READ + 1).T
    logits = model.out(model.rnn(model.embed(windows[:-1]))[0])
    bits = np.array([nn.cross_entropy(y, t) for y, t in zip(logits, windows[1:], strict=True)])
    bits /= math.log(2)
    found = {
        "frequencies alone": unigram_entropy(held_out),
        "1 character read": float(bits[0]),
        "32 to 64 read": float(bits[31:64].mean()),
        "128 to 256 read": float(bits[127:].mean()),
    }
    table(("held out", "bits per character"), list(found.items()))

    prompt = vocabulary.encode("\n\nThe ")
    ways: dict[str, dict[str, Any]] = {
        "temperature 0.5": {"temperature": 0.5},
        "the 5 likeliest": {"top_k": 5},
        "the likeliest 0.8 of all": {"top_p": 0.8},
    }
    for name, way in ways.items():
        print(f"\n{name}:\n\nThe ", end="")
        generator = np.random.default_rng(o.seed)
        for index in model.generate(prompt, o.write, never=(0,), generator=generator, **way):
            print(vocabulary.characters[index], end="")
            sys.stdout.flush()  # as it is written
        print()

    def draw(axis: Any) -> None:
        axis.plot(np.arange(1, READ + 1), bits, lw=1)
        axis.axhline(found["frequencies alone"], color="gray", ls="--", label="frequencies alone")
        axis.set(
            xscale="log", xlabel="characters read", ylabel="bits per character", ylim=(0, None)
        )
        axis.legend()

    picture(o.out / "characters.png", draw, columns=1)
    return found


if __name__ == "__main__":
    main()
