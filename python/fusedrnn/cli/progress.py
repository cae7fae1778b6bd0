"""Progress on standard error: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm  # type: ignore[import-untyped]

#: Where nothing can be drawn over: seconds before the first line, and between two of them, beside
#: those of evaluations.
SECONDS_TO_FIRST, SECONDS_BETWEEN = 1.0, 10.0
#: Updates that the shown loss remembers.
MEMORY = 50


class Progress:
    """Shows the loss, the speed and the time left of a training.

    Parameters
    ----------
    done, total : int
        Updates, those of an earlier run included.
    unit : str
        What the speed counts.
    name : str
        What the loss is called.
    quiet : bool
        Show nothing.
    """

    def __init__(
        self, done: int, total: int, unit: str, name: str = "loss", quiet: bool = False
    ) -> None:
        self._first, self._done, self._total = done, done, total
        self._unit, self._name = unit, name
        self._quiet = quiet
        self._amount = 0
        self._loss = 0.0
        self._begin = time.perf_counter()
        self._next = self._begin + SECONDS_TO_FIRST
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="update",
            disable=quiet or not self._terminal or done >= total,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.close()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begin

    @property
    def speed(self) -> float:
        """What was trained on in a second, in `unit`."""
        return self._amount / max(self.seconds, 1e-9)

    def update(self, loss: float, amount: int) -> None:
        """Count an update with its loss, on so many characters or sequences."""
        self._done += 1
        self._amount += amount
        self._loss += (loss - self._loss) / min(self._done - self._first, MEMORY)
        self._bar.set_postfix_str(
            f"{self._name} {self._loss:.3f}, {self.speed:,.0f} {self._unit}/s", refresh=False
        )
        self._bar.update()
        if not self._terminal and time.perf_counter() > self._next:
            self._line(f"{self._name} {self._loss:.4g}")

    def evaluated(self, results: str) -> None:
        """Show what an evaluation found."""
        self._line(results)

    def _line(self, what: str) -> None:
        self._next = time.perf_counter() + SECONDS_BETWEEN
        if self._quiet:
            return
        line = (
            f"{self._done}/{self._total}: {what}, {self.speed:,.0f} {self._unit}/s, "
            f"{self._left()} left"
        )
        if self._terminal:
            tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def _left(self) -> str:
        made = self._done - self._first
        if not made:
            return "?"
        return str(tqdm.format_interval(self.seconds / made * (self._total - self._done)))
