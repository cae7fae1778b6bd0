"""The training loop: truncated back-propagation through time, with progress and Ctrl-C."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import fusedrnn
from fusedrnn.cli.errors import TrainingError
from fusedrnn.demo.optim import learning_rate
from fusedrnn.demo.text import Indices, Streams, Vocabulary
from fusedrnn.models import CharModel

#: Steps that the loss at the end is averaged over, and the memory of the one in the bar.
RECENT_STEPS = 50
#: Each stream of the validation text starts without context, so there are few and long ones.
EVALUATION_STREAM_LENGTH = 4096
EVALUATION_CHUNK = 256


@dataclass(frozen=True)
class TrainingOptions:
    """How to train: B and T of the chunks, base learning rate, limit of the gradient norm."""

    batch: int
    chunk: int
    lr: float
    clip: float
    seed: int


@dataclass
class Session:
    """Everything that training changes or depends on; a checkpoint is this and nothing else.

    Attributes
    ----------
    text : str
        Fingerprint of the text that ``position`` and ``state`` belong to.
    position : int
        Chunks of that text seen since its beginning, over all passes.
    """

    model: CharModel
    vocabulary: Vocabulary
    adam: fusedrnn.Adam
    options: TrainingOptions
    text: str
    position: int = 0
    state: Any = None


@dataclass
class Report:
    """What happened in one call of `train`; one entry a step."""

    bits: list[float] = field(default_factory=list)  # per character
    norms: list[float] = field(default_factory=list)  # before clipping
    clipped: int = 0
    interrupted: bool = False
    seconds: float = 0.0


class Interrupt:
    """Whether Ctrl-C was pressed."""

    # A plain attribute: an Event's lock could be taken twice by two signals in a row.
    requested = False


@contextmanager
def ctrl_c_as_request() -> Iterator[Interrupt]:
    """Turn Ctrl-C into a flag, so that neither an update nor a file is cut in half.

    Does nothing outside the main thread, and where the process handles or ignores SIGINT in a way
    of its own.
    """
    interrupt = Interrupt()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupt
        return

    def request(_signal: int, _frame: FrameType | None) -> None:
        interrupt.requested = True

    signal.signal(signal.SIGINT, request)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def train(
    session: Session, streams: Streams, steps: int, interrupt: Interrupt, quiet: bool = False
) -> Report:
    """Do ``steps`` more updates on ``streams``, or fewer where ``interrupt`` is requested.

    The loss of a chunk is its cross-entropy summed over time and averaged over the batch, and
    that is what ``options.clip`` is measured against. Progress goes to stderr.

    Raises
    ------
    TrainingError
        If the loss or a gradient is no longer finite.
    """
    options, report, recent = session.options, Report(), 0.0
    begin = time.perf_counter()
    terminal = sys.stderr.isatty()
    with (
        np.errstate(over="ignore", invalid="ignore"),  # reported below, once
        tqdm(
            total=steps * options.batch * options.chunk,
            unit="char",
            unit_scale=True,
            disable=quiet or not steps,
            # Where nothing can be drawn over, every update is one more line in a log.
            mininterval=0.2 if terminal else 1.0,
            dynamic_ncols=terminal,
        ) as bar,
    ):
        for step in range(steps):
            if interrupt.requested:
                report.interrupted = True
                break
            inputs, targets, first = streams.at(session.position)
            loss, gradients, state = session.model.loss_and_gradients(
                inputs, targets, None if first else session.state
            )
            norm = fusedrnn.clip_grad_norm(gradients, options.clip)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(
                    f"training diverged at update {session.adam.updates + 1}: "
                    f"loss {loss:g}, gradient norm {norm:g}; try a smaller --lr"
                )
            session.adam.lr = learning_rate(options.lr, session.adam.updates + 1)
            session.adam.step(gradients)
            session.position += 1
            session.state = state

            report.bits.append(loss / options.chunk / math.log(2))
            report.norms.append(norm)
            report.clipped += norm > options.clip
            recent += (report.bits[-1] - recent) / min(step + 1, RECENT_STEPS)
            bar.set_postfix_str(f"{recent:.3f} bits/char", refresh=False)
            bar.update(inputs.size)
    report.seconds = time.perf_counter() - begin
    return report


def evaluate(model: CharModel, indices: Indices) -> float:
    """Return the mean cross-entropy of a text in bits per character."""
    batch = max(1, len(indices) // EVALUATION_STREAM_LENGTH)
    chunk = min(EVALUATION_CHUNK, (len(indices) - 1) // batch)
    nats, count = 0.0, 0
    state: Any = None
    for inputs, targets in Streams(indices, batch, chunk).one_pass():
        loss, state = model.loss(inputs, targets, state)
        nats += loss * batch
        count += inputs.size
    return nats / count / math.log(2)
