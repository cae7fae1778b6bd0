"""A training: a model, Adam, the order of the data, and where they stand."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import fusedrnn
from fusedrnn import nn, options
from fusedrnn.schedules import Schedule

#: Steps that the loss in the progress line is averaged over.
RECENT = 50


def clipped_step(
    optimizer: Any, loss: float, gradients: dict[str, Any], clip: float, what: str
) -> float:
    """Make a step with clipped gradients; return their norm before.

    Parameters
    ----------
    optimizer : Adam, or another of fusedrnn's
    loss : float
    gradients : dict of str to array
        By name; they are clipped in place.
    clip : float
        Limit of the norm of all of them together; inf: none.
    what : str
        The step, as the error names it.

    Raises
    ------
    FloatingPointError
        Where loss or gradients are not finite: training diverged at `what`. Nothing has been
        written to parameters then.
    """
    norm = fusedrnn.clip_grad_norm(gradients, clip)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise FloatingPointError(
            f"training diverged at {what}: loss {loss:g}, gradient norm {norm:g}"
        )
    optimizer.step(gradients)
    return norm


class Training:
    """Makes steps of Adam on a model, which can be saved between any two and resumed to the bit.

    Parameters
    ----------
    model : Model
        Or any `fusedrnn.nn.Module` with ``loss_and_gradients``.
    lr : float or schedule
    clip : float
        Limit of the norm of all gradients together; inf: none.
    seed : int
        Of `generator`.

    Attributes
    ----------
    step : int
        How many were made.
    generator : numpy.random.Generator
        For the data: their order, noise.
    state
        What the model returned behind the gradients of the last step, if it did: the recurrent
        state that is carried on.
    """

    def __init__(
        self, model: Any, lr: float | Schedule = 1e-3, *, clip: float = 1.0, seed: int = 0
    ) -> None:
        if not (hasattr(model, "loss_and_gradients") and hasattr(model, "parameters")):
            raise TypeError(
                f"model: expected one with loss_and_gradients, got {type(model).__name__}"
            )
        if not options.real("clip", clip) >= 0:
            raise ValueError(f"clip: expected at least 0, got {clip}")
        self.model = model
        self.optimizer = fusedrnn.Adam(model.parameters(), lr)
        self.generator = np.random.default_rng(options.seed(seed))
        self.clip = clip
        self.step = 0
        self.state: Any = None

    def run(
        self, until: int, batch: Callable[[Training], tuple[Any, ...]], *, quiet: bool = False
    ) -> float:
        """Make steps until there were so many; return the mean loss of the last 50 of them.

        Parameters
        ----------
        until : int
            Steps, those of before included.
        batch : callable
            Takes this training and returns the arguments of ``model.loss_and_gradients``: of
            ``training.step``, what ``training.generator`` draws, and ``training.state``.
        quiet : bool
            Whether the progress line on stderr is left out.

        Raises
        ------
        FloatingPointError
            Where loss or gradients are no longer finite; the model is as before that step.
        """
        until = options.count("until", until)
        losses: list[float] = []
        with tqdm(
            total=until, initial=self.step, disable=quiet, unit="step", file=sys.stderr,
            mininterval=0.5 if sys.stderr.isatty() else 10.0,
        ) as bar:  # fmt: skip
            while self.step < until:
                given = batch(self)
                if not isinstance(given, (tuple, list)):
                    kind = type(given).__name__
                    raise TypeError(f"batch: expected a tuple from the callable, got {kind}")
                loss, gradients, *rest = self.model.loss_and_gradients(*given)
                what = f"step {self.step + 1}"
                clipped_step(self.optimizer, loss, gradients, self.clip, what)
                self.step += 1
                self.state = rest[0] if rest else None
                losses = [*losses[1 - RECENT :], loss]
                bar.set_postfix_str(f"loss {np.mean(losses):.4f}", refresh=False)
                bar.update()
        return float(np.mean(losses)) if losses else math.nan

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Write all of it to a file of `fusedrnn.nn.save_checkpoint`.

        Parameters
        ----------
        path : path
        **metadata
            More to keep in the file's metadata, beside "class", "config" and "step".

        Raises
        ------
        ValueError, TypeError, OSError, ImportError
            As `fusedrnn.nn.save_checkpoint`.
        """
        state = self.state if isinstance(self.state, tuple) else (self.state,)
        arrays = {f"state.{k}": part for k, part in enumerate(state) if part is not None}
        known = {
            "class": type(self.model).__name__, "config": self.model.config(), "step": self.step,
        }  # fmt: skip
        nn.save_checkpoint(
            path, self.model, self.optimizer, generator=self.generator, arrays=arrays,
            metadata=metadata | known,
        )  # fmt: skip

    def resume(self, path: str | Path) -> dict[str, Any]:
        """Go on where `save` was called, and return the file's metadata.

        Raises
        ------
        ValueError
            Where the file is damaged, or of another model than this one.
        OSError, ImportError
            As `fusedrnn.nn.load_checkpoint`.
        """
        saved = nn.load_checkpoint(path)
        wanted = {"class": type(self.model).__name__, "config": self.model.config()}
        found = {name: saved.metadata.get(name) for name in wanted}
        if found != wanted:
            raise ValueError(f"path: expected the training of {wanted}, got one of {found}")
        saved.restore(self.model, self.optimizer, generator=self.generator)
        self.step = options.count("step", saved.metadata.get("step"))
        parts = [saved.arrays[name] for name in sorted(saved.arrays)]
        self.state = tuple(parts) if len(parts) > 1 else parts[0] if parts else None
        return saved.metadata
