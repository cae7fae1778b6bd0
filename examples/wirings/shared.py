"""What these examples share: arguments, training, a baseline without order, table, picture."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fusedrnn as fr
from fusedrnn import nn
from fusedrnn.models import Training

Batch = Callable[[Training], tuple[Any, ...]]


def arguments(doc: str | None, given: Sequence[str] | None, **defaults: Any) -> argparse.Namespace:
    """The arguments of an example: those of all, and its own with their defaults."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"({value})")
    parser.add_argument("--seed", type=int, default=0, help="of data and weights (0)")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of model and picture (.)")
    parser.add_argument("--stop", type=int, help="stop after so many steps, to go on later")
    parser.add_argument("--resume", action="store_true", help="go on from the model in that folder")
    parser.add_argument("--quiet", action="store_true", help="no progress line")
    return parser.parse_args(given)


def train(name: str, model: Any, batch: Batch, o: argparse.Namespace, lr: float) -> Any:
    """Train up to ``o.steps`` steps, with a rate that falls to 0 by then; return the model.

    What is saved has everything that the training depends on, so that what is resumed goes on as
    if it had never been interrupted: to the bit.
    """
    path = o.out / f"{name}.safetensors"
    schedule = fr.schedules.WarmUp(20, fr.schedules.Cosine(lr, max(o.steps - 20, 1)))
    training = Training(model, schedule, seed=o.seed)
    if o.resume:
        training.resume(path)
        print(f"{path}: goes on after {training.step} steps")
    o.out.mkdir(parents=True, exist_ok=True)  # where that fails nothing is lost yet
    training.run(o.steps if o.stop is None else o.stop, batch, quiet=o.quiet)
    training.save(path)
    print(f"{path}: saved after {training.step} steps")
    return model.eval()


def regression(features: Any, labels: Any, classes: int, steps: int = 500) -> Callable[[Any], Any]:
    """A baseline that sees no order: softmax regression of features [n, F], by Adam on all."""
    center, spread = features.mean(0), features.std(0) + 1e-6

    def scaled(values: Any) -> Any:
        return ((values - center) / spread).astype(np.float32)

    linear = nn.Linear(features.shape[1], classes, seed=0)
    optimizer = fr.Adam(linear.parameters(), 0.05)
    x = scaled(features)
    for _ in range(steps):
        logits, tape = linear.forward(x)
        _, d_logits = nn.cross_entropy_grad(logits, labels)
        grads = linear.backward(tape, d_logits)
        optimizer.step({name: grads[name] for name in linear.parameters()})
    return lambda values: linear(scaled(values)).argmax(axis=-1)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a head; numbers to three decimals."""
    texts = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *texts, strict=True)]
    for line in (head, *texts):
        cells = [line[0].ljust(widths[0])]
        cells += [value.rjust(width) for value, width in zip(line[1:], widths[1:], strict=True)]
        print("  ".join(cells))


def picture(
    path: Path,
    draw: Callable[..., None],
    rows: int = 1,
    columns: int = 2,
    size: Any = (4.5, 3.2),
    **subplots: Any,
) -> None:
    """Let `draw` fill the axes of a figure, and save it; without matplotlib say so."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  # an example works without it
    except ImportError:
        print(f"{path}: not drawn, which needs matplotlib: pip install 'fusedrnn[plot]'")
        return
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    draw(*figure.subplots(rows, columns, squeeze=False, **subplots).flat)
    figure.savefig(path, dpi=80, pil_kwargs={"optimize": True})
    print(f"{path}: drawn")
