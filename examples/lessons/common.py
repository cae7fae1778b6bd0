"""What the lessons share: their arguments, a model to train, a text, tables and pictures."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fusedrnn as fr
from fusedrnn import nn

# Of outputs [T, B, O]: their loss and its gradient.
Loss = Callable[[Any], tuple[float, Any]]


def arguments(
    doc: str | None, given: Sequence[str] | None, *, seeded: bool = True
) -> argparse.Namespace:
    """The arguments of a lesson: `out`, `small` and, where anything is drawn, `seed`."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the picture (.)")
    parser.add_argument("--small", action="store_true", help="a few seconds, for a test")
    if seeded:
        parser.add_argument("--seed", type=int, default=0, help="of data and weights (0)")
    # Arrays of this size are too small to be shared: where nobody says how many, one thread.
    if given is None and not os.environ.keys() & {"FUSEDRNN_NUM_THREADS", "OMP_NUM_THREADS"}:
        fr.set_num_threads(1)
    return parser.parse_args(given)


class Model(nn.Module):
    """A recurrent layer, a linear readout of its outputs, and Adam over both.

    `last` is how many steps at the end are read; 0 reads them all.
    """

    def __init__(self, layer: Any, outputs: int, lr: float, *, last: int = 0) -> None:
        super().__init__()
        self.layer, self.last = layer, last
        width = layer.hidden_size * (2 if layer.bidirectional else 1)
        self.readout = nn.Linear(width, outputs, seed=0)
        self.optimizer = fr.Adam(self.parameters(), lr)

    def __call__(self, x: Any, **call: Any) -> Any:
        """Outputs [T, B, O], of the last steps alone where only they are read."""
        return self.readout(self.layer(x, **call)[0][-self.last :])

    def update(self, x: Any, loss: Loss, **call: Any) -> tuple[float, Any]:
        """One step of Adam; the loss before it, and the state after the last step of time."""
        y, state, tape = self.layer.forward(x, **call)
        value, dy, readout = self.read(y, loss)
        self.apply(self.layer.backward(tape, dy), readout)
        return value, state

    def read(self, y: Any, loss: Loss) -> tuple[float, Any, Mapping[str, Any]]:
        """The loss of the layer's y, the gradient of y, and those of the readout."""
        outputs, tape = self.readout.forward(y[-self.last :])
        value, slope = loss(outputs)
        grads = self.readout.backward(tape, slope)
        dy = np.zeros_like(y)
        dy[-self.last :] = grads["x"]
        return value, dy, grads

    def apply(self, layer: Mapping[str, Any], readout: Mapping[str, Any]) -> None:
        """Clip the gradients to a norm of 1, and let Adam take its step."""
        grads = self.named_gradients(layer=layer, readout=readout)
        fr.clip_grad_norm(grads, 1.0)
        self.optimizer.step(grads)


def reference_text() -> str:
    """English that every Python has with it: the language reference, each paragraph once."""
    from pydoc_data.topics import topics  # noqa: PLC0415  # some 700 kB, of two lessons

    return "\n\n".join(dict.fromkeys(p for text in topics.values() for p in text.split("\n\n")))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a head; numbers to three digits."""
    texts = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *texts, strict=True)]
    for line in (head, *texts):
        cells = [line[0].ljust(widths[0])]
        cells += [v.rjust(w) for v, w in zip(line[1:], widths[1:], strict=True)]
        print("  ".join(cells))


def picture(
    path: Path, draw: Callable[..., None], rows: int = 1, columns: int = 2, width: float = 4.5
) -> None:
    """Let `draw` fill the axes of a figure, and save it; without matplotlib say so."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  # a lesson works without it
    except ImportError:
        print(f"{path}: not drawn, which needs matplotlib: pip install 'fusedrnn[plot]'")
        return
    figure = Figure(figsize=(width * columns, 3.4 * rows), layout="constrained")
    draw(*figure.subplots(rows, columns, squeeze=False).flat)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80, pil_kwargs={"optimize": True})
    print(f"{path}: written")
