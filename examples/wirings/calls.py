"""Many to one: which bird it was, from recordings of calls.

    python examples/wirings/calls.py

The recordings are generated: a tone that glides in one of eight ways, at any pitch and speed, in
noise, 8000 samples a second. Frames of 16 ms go through a Fourier transform into 16 bands each.
The baseline is a regression of what the bands hold on average: it knows which pitches there were,
but not in which order.

In the picture: a call of each kind, as the network reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from shared import arguments, picture, regression, table, train

from fusedrnn.models import Classifier, pad

RATE, FRAME, BANDS = 8000, 128, 16
# The pitch over a call, from 0 to 1, at times s from 0 to 1.
CALLS = {
    "rises": lambda s: s,
    "falls": lambda s: 1 - s,
    "arch": lambda s: np.sin(np.pi * s),
    "dip": lambda s: 1 - np.sin(np.pi * s),
    "step up": lambda s: (s > 0.5) * 1.0,
    "step down": lambda s: (s < 0.5) * 1.0,
    "trill": lambda s: (s * 6 % 1 > 0.5) * 1.0,
    "wobble": lambda s: 0.5 + 0.5 * np.sin(6 * np.pi * s),
}


def recording(label: int, rng: np.random.Generator) -> Any:
    """Samples of one call, with silence around it."""
    seconds = rng.uniform(0.3, 0.6)
    s = np.arange(int(seconds * RATE)) / (seconds * RATE)
    low, high = rng.uniform(400, 1200), rng.uniform(1800, 3000)
    pitch = low + (high - low) * list(CALLS.values())[label](s)
    call = np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * np.hanning(len(s)) ** 0.3
    around = [np.zeros(int(rng.uniform(0, 0.15) * RATE)) for _ in range(2)]
    samples = np.concatenate([around[0], call, around[1]])
    return samples + rng.normal(0, 0.7, len(samples))


def spectrum(samples: Any) -> Any:
    """The logarithm of the power in bands [T, 16]."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME) * np.hanning(FRAME)
    power = np.abs(np.fft.rfft(frames)[:, 1 : FRAME // 2 + 1]) ** 2
    bands = power.reshape(len(frames), BANDS, -1).sum(-1)
    return (np.log(bands + 1e-3) / 2 - 1).astype(np.float32)


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    o = arguments(__doc__, given, steps=400, batch=64, hidden=32, recordings=3000)
    rng = np.random.default_rng(o.seed)
    labels = rng.integers(0, len(CALLS), o.recordings)
    spectra = [spectrum(recording(label, rng)) for label in labels]
    x, lengths = pad(spectra)
    cut = o.recordings * 3 // 4

    model = Classifier(len(CALLS), input_size=BANDS, hidden=o.hidden, dropout=0.2, seed=o.seed)

    def batch(training: Any) -> tuple[Any, ...]:
        chosen = training.generator.integers(0, cut, o.batch)
        return x[:, chosen], labels[chosen], lengths[chosen]

    train("calls", model, batch, o, 1e-2)
    means = np.stack([s.mean(0) for s in spectra])
    of_means = regression(means[:cut], labels[:cut], len(CALLS))
    hit = {
        "mean spectrum": of_means(means[cut:]) == labels[cut:],
        "recurrent": model.predict(x[:, cut:], lengths[cut:]).argmax(-1) == labels[cut:],
    }
    table(("accuracy, held out", *CALLS, "all"),
          [(name, *(float(h[labels[cut:] == k].mean()) for k in range(len(CALLS))),
            float(h.mean())) for name, h in hit.items()])  # fmt: skip

    def draw(*axes: Any) -> None:
        for k, (axis, name) in enumerate(zip(axes, CALLS, strict=True)):
            axis.imshow(spectra[int(np.argmax(labels == k))].T, origin="lower", aspect="auto")
            axis.set_title(name, fontsize=9)
            axis.set_axis_off()

    picture(o.out / "calls.png", draw, rows=2, columns=4, size=(2.2, 1.5))
    return {name: float(h.mean()) for name, h in hit.items()}


if __name__ == "__main__":
    main()
