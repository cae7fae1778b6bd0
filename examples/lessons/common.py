"""What the lessons share: their arguments, a model to train, tables and pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fusedrnn as fr

# Of outputs [T, B, O]: their loss and its gradient.
Loss = Callable[[Any], tuple[float, Any]]


def arguments(doc: str | None, given: Sequence[str] | None) -> argparse.Namespace:
    """The arguments that every lesson takes: `out`, `seed` and `small`."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the picture (.)")
    parser.add_argument("--seed", type=int, default=0, help="of data and weights (0)")
    parser.add_argument("--small", action="store_true", help="a few seconds, for a test")
    return parser.parse_args(given)


class Model:
    """A recurrent layer, a linear readout of its outputs, and Adam over both.

    `last` is how many steps at the end are read; 0 reads them all.
    """

    def __init__(
        self, layer: Any, outputs: int, lr: float, *, last: int = 0, clip: float = 1.0
    ) -> None:
        self.layer, self.last, self.clip = layer, last, clip
        width = layer.hidden_size * (2 if layer.bidirectional else 1)
        rng = np.random.default_rng(outputs)
        self.weight = rng.normal(0, width**-0.5, (outputs, width)).astype(np.float32)
        self.bias = np.zeros(outputs, np.float32)
        self.parameters = layer.parameters() | {"weight": self.weight, "bias": self.bias}
        self.optimizer = fr.Adam(self.parameters, lr)

    def readout(self, y: Any) -> Any:
        """Outputs [T, B, O] of y [T, B, H]."""
        return y[-self.last :] @ self.weight.T + self.bias

    def through_readout(self, y: Any, slope: Any) -> tuple[Any, dict[str, Any]]:
        """The gradient of y, and those of the readout, from that of its outputs."""
        slope = slope.astype(np.float32)
        dy = np.zeros_like(y)
        dy[-self.last :] = slope @ self.weight
        flat = slope.reshape(-1, slope.shape[-1])
        d_weight = flat.T @ y[-self.last :].reshape(-1, y.shape[-1])
        return dy, {"weight": d_weight, "bias": flat.sum(0)}

    def update(self, x: Any, loss: Loss, **call: Any) -> tuple[float, Any]:
        """One step of Adam; the loss before it, and the state after the last step of time."""
        y, state, tape = self.layer.forward(x, **call)
        value, slope = loss(self.readout(y))
        dy, grads = self.through_readout(y, slope)
        self.apply(self.layer.backward(tape, dy) | grads)
        return value, state

    def apply(self, grads: dict[str, Any]) -> None:
        """Clip the gradients by their norm, and let Adam take its step."""
        fr.clip_grad_norm(grads, self.clip)
        self.optimizer.step(grads)


def squared_error(outputs: Any, target: Any) -> tuple[float, Any]:
    """Its mean over [T, B, O], and its gradient."""
    error = outputs - target
    return float(np.mean(error**2)), 2 * error / error.size


def cross_entropy(outputs: Any, target: Any) -> tuple[float, Any]:
    """In nats, the mean over indices `target` [T, B], and its gradient."""
    shifted = outputs - outputs.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    slope = np.exp(log_p)
    np.put_along_axis(
        slope, target[..., None], np.take_along_axis(slope, target[..., None], -1) - 1, -1
    )
    found = np.take_along_axis(log_p, target[..., None], -1)
    return float(-found.mean()), slope / target.size


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
    axes = figure.subplots(rows, columns, squeeze=False).flat
    draw(*axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80, pil_kwargs={"optimize": True})
    print(f"{path}: written")


def reference_text() -> str:
    """English that every Python has with it: the language reference, each paragraph once."""
    from pydoc_data.topics import topics  # noqa: PLC0415  # some 700 kB, of two lessons

    return "\n\n".join(dict.fromkeys(p for text in topics.values() for p in text.split("\n\n")))
