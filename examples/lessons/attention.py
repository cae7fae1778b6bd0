"""The bottleneck of one vector, against attention, by length.

    python examples/lessons/attention.py

An encoder reads a sentence, a decoder says it in another language. Where all that goes between
them is one vector, the encoder's last state, a longer sentence has to go into the same numbers (K.
Cho et al., "On the properties of neural machine translation", 2014). With attention each step of
the decoder looks at all of the encoder's states (D. Bahdanau, K. Cho, Y. Bengio, "Neural machine
translation by jointly learning to align and translate", ICLR 2015; here, as in M.-T. Luong, H.
Pham, C. D. Manning, "Effective approaches to attention-based neural machine translation", EMNLP
2015, after the cell):

    a_ts = softmax over s of score(d_t, e_s)      context_t = sum_s a_ts e_s
    logits_t = V [d_t, context_t]                 without attention: V d_t

The language: a sentence is some of 32 words, each at most once, in any order, and is translated
word for word. The decoder is trained with the true last word as input, and tested with its own.

In the picture, left: right words by the length of the sentence. Right: where the decoder looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import arguments, picture, table

import fusedrnn as fr
from fusedrnn import nn

WORDS, BATCH, HIDDEN, LONGEST = 32, 32, 64, 24


class Translator(nn.Module):
    """An encoder, a decoder that begins with its last state, and attention or none."""

    def __init__(self, attends: bool, seed: int) -> None:
        super().__init__()
        self.encoder = fr.GRU(WORDS, HIDDEN, seed=seed)
        self.decoder = fr.GRU(WORDS + 1, HIDDEN, seed=seed + 1)  # + 1: the beginning
        self.attention = nn.Attention(HIDDEN, HIDDEN, score="dot") if attends else None
        self.readout = nn.Linear(HIDDEN * (2 if attends else 1), WORDS, seed=seed)

    def gradients(self, x: Any, target: Any) -> tuple[float, dict[str, Any]]:
        """The loss of sentences x [S, B], and the gradient of each parameter."""
        memory, h, encoded = self.encoder.forward(np.eye(WORDS, dtype=np.float32)[x])
        said = np.concatenate([np.full_like(target[:1], WORDS), target[:-1]])
        d, _, decoded = self.decoder.forward(np.eye(WORDS + 1, dtype=np.float32)[said], h)
        features = d
        if self.attention:
            context, attended = self.attention.forward(d, memory)
            features = np.concatenate([d, context], axis=-1)
        logits, read = self.readout.forward(features)
        loss, slope = nn.cross_entropy_grad(logits, target)

        parts = {"readout": self.readout.backward(read, slope)}
        dd, dmemory = parts["readout"]["x"][..., :HIDDEN], None
        if self.attention:
            dcontext = parts["readout"]["x"][..., HIDDEN:]
            parts["attention"] = self.attention.backward(attended, dcontext)
            dd, dmemory = dd + parts["attention"]["query"], parts["attention"]["memory"]
        parts["decoder"] = self.decoder.backward(decoded, dd)
        parts["encoder"] = self.encoder.backward(encoded, dmemory, parts["decoder"]["h0"])
        return loss, self.named_gradients(**parts)

    def translate(self, x: Any) -> tuple[Any, Any]:
        """Words [S, B], each the likeliest after those before, and the weights [S, B, S]."""
        memory, h = self.encoder(np.eye(WORDS, dtype=np.float32)[x])
        prepared = self.attention.prepare(memory) if self.attention else None
        said, words, weights = np.full_like(x[0], WORDS), [], []
        for _ in x:
            d, h = self.decoder.step(np.eye(WORDS + 1, dtype=np.float32)[said], h)
            if self.attention:
                context, looked = self.attention.step(d, prepared, return_weights=True)
                d = np.concatenate([d, context], axis=-1)
                weights.append(looked)
            said = self.readout(d).argmax(-1)
            words.append(said)
        return np.array(words), np.array(weights)


def main(given: Sequence[str] | None = None) -> dict[tuple[bool, int], float]:
    o = arguments(__doc__, given)
    longest, updates = (12, 400) if o.small else (LONGEST, 2000)
    lengths = range(2, longest + 1, 2)
    found, dictionary = {}, np.random.default_rng(o.seed).permutation(WORDS)
    for attends in (False, True):
        rng = np.random.default_rng(o.seed)
        model = Translator(attends, o.seed)
        optimizer = fr.Adam(model.parameters(), 1e-2)
        for _ in range(updates):
            x = rng.permuted(np.tile(np.arange(WORDS), (BATCH, 1)), axis=1).T
            x = x[: rng.integers(2, longest + 1)]
            grads = model.gradients(x, dictionary[x])[1]
            fr.clip_grad_norm(grads, 1.0)
            optimizer.step(grads)
        for length in lengths:
            x = rng.permuted(np.tile(np.arange(WORDS), (256, 1)), axis=1).T[:length]
            words, weights = model.translate(x)
            found[attends, length] = float(np.mean(words == dictionary[x]))
    names = {False: "one vector", True: "attention"}
    rows = [(name, *(found[attends, n] for n in lengths)) for attends, name in names.items()]
    table(("right words, by length", *map(str, lengths)), rows)

    def draw(left: Any, right: Any) -> None:
        for attends, name in names.items():
            left.plot(lengths, [found[attends, n] for n in lengths], "o-", label=name)
        left.set(xlabel="words in the sentence", ylabel="right words", ylim=(0, 1.05))
        left.legend()
        right.imshow(weights[:, 0], cmap="viridis", vmin=0)
        right.set(xlabel="word read", ylabel="word said")

    picture(o.out / "attention.png", draw)
    return found


if __name__ == "__main__":
    main()
