"""A whole training beside PyTorch: `python bench/char_model.py`.

A character model on the text of Python's help topics: embedding of 64, one GRU or LSTM of 256,
linear layer, cross-entropy; 64 characters a step of 32 or 8 streams, the state carried on,
gradients clipped, Adam. PyTorch has the same model as people write it (`nn.Embedding`, `nn.GRU`,
`nn.Linear`), from the same initial weights, and gets the same characters and learning rates in the
same order. The two take turns by blocks of steps, so that what else the machine does hits both;
seconds are those on the clock and of the process's CPU time, of training alone. At the end each is
measured on the text held out.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch

import fusedrnn as fr
from bench import machine
from fusedrnn.cli.characters import Streams, Vocabulary, default_text, split
from fusedrnn.models import CharModel

CHUNK, HIDDEN, EMBEDDING, CLIP = 64, 256, 64, 1.0
LR, LR_STREAMS = 6e-3, 32  # the rate of so many streams; others by the square root of their number
HELD_OUT = 16  # streams of the text held out
Batch = tuple[Any, Any, bool]  # inputs and targets [T, B], and whether a pass begins


class Ours:
    """`fusedrnn.models.CharModel` and `fusedrnn.Adam`."""

    def __init__(self, vocabulary: int, cell: str, rate: Callable[[int], float]) -> None:
        self.model = CharModel(vocabulary, cell=cell, embedding=EMBEDDING, hidden=HIDDEN, seed=0)
        self.optimizer = fr.Adam(self.model.parameters(), rate)
        self.state: Any = None

    def step(self, batch: Batch) -> None:
        inputs, targets, first = batch
        state = None if first else self.state
        _, grads, self.state = self.model.loss_and_gradients(inputs, targets, state)
        for grad in grads.values():
            np.divide(grad, CHUNK, out=grad)  # a mean over time as well, as PyTorch's
        fr.clip_grad_norm(grads, CLIP)
        self.optimizer.step(grads)

    def loss(self, chunks: list[tuple[Any, Any]]) -> float:
        total, state = 0.0, None
        for inputs, targets in chunks:
            loss, state = self.model.loss(inputs, targets, state)
            total += loss * inputs.shape[1]
        return total


class Theirs(torch.nn.Module):
    """The same of PyTorch's modules."""

    def __init__(self, ours: CharModel, rate: Callable[[int], float]) -> None:
        super().__init__()
        vocabulary = ours.config()["vocabulary"]
        self.embed = torch.nn.Embedding(vocabulary, EMBEDDING)
        cell = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[ours.config()["cell"]]
        self.rnn = cell(EMBEDDING, HIDDEN)
        self.out = torch.nn.Linear(HIDDEN, vocabulary)
        self.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
        self.optimizer = torch.optim.Adam(self.parameters(), rate(0))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda update: rate(update) / rate(0)
        )
        self.state: Any = None

    def cross_entropy(self, inputs: Any, targets: Any, state: Any) -> tuple[torch.Tensor, Any]:
        y, state = self.rnn(self.embed(torch.from_numpy(inputs)), state)
        logits = self.out(y).flatten(0, 1)
        wanted = torch.from_numpy(targets).flatten()
        return torch.nn.functional.cross_entropy(logits, wanted), state

    def step(self, batch: Batch) -> None:
        inputs, targets, first = batch
        state = None if first else self.state
        if state is not None:
            parted = isinstance(state, tuple)
            state = tuple(s.detach() for s in state) if parted else state.detach()
        self.optimizer.zero_grad()
        loss, self.state = self.cross_entropy(inputs, targets, state)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters(), CLIP)
        self.optimizer.step()
        self.schedule.step()

    @torch.no_grad()
    def loss(self, chunks: list[tuple[Any, Any]]) -> float:
        total, state = 0.0, None
        for inputs, targets in chunks:
            loss, state = self.cross_entropy(inputs, targets, state)
            total += float(loss) * inputs.size
        return total


def train(cell: str, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train both on so many streams, taking turns; what came out."""
    before, after = split(default_text())
    vocabulary = Vocabulary.of(before)
    streams = Streams(vocabulary.encode(before), count, CHUNK)
    held_out = Streams(vocabulary.encode(after), HELD_OUT, 4 * CHUNK).one_pass()
    steps = max(options.characters // (count * CHUNK), 1)
    peak = LR * math.sqrt(count / LR_STREAMS)
    warm_up = fr.schedules.WarmUp(20, fr.schedules.Cosine(peak, max(steps - 20, 1)))
    ours = Ours(len(vocabulary), cell, warm_up)
    theirs = Theirs(ours.model, warm_up)
    both: dict[str, Any] = {"fusedrnn": ours, "PyTorch": theirs}
    seconds, cpu = dict.fromkeys(both, 0.0), dict.fromkeys(both, 0.0)
    for begin in range(0, steps, options.block):
        batches = [streams.at(k) for k in range(begin, min(begin + options.block, steps))]
        for name, model in both.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            for batch in batches:
                model.step(batch)
            seconds[name] += time.perf_counter() - start
            cpu[name] += time.process_time() - cpu_start
    read = sum(inputs.size for inputs, _ in held_out)
    runs = {
        name: {
            "seconds": seconds[name],
            "cpu_seconds": cpu[name],
            "bits_per_character": model.loss(held_out) / read / math.log(2),
        }
        for name, model in both.items()
    }
    return {"cell": cell, "streams": count, "steps": steps, "runs": runs}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train both, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", nargs="+", choices=("lstm", "gru"), default=["gru", "lstm"])
    parser.add_argument("--streams", nargs="+", type=int, default=[32, 8], help="side by side")
    parser.add_argument("--characters", type=int, default=1024000, help="read in each training")
    parser.add_argument("--block", type=int, default=40, help="steps until it is the other's turn")
    parser.add_argument("--threads", type=int, default=2, help="of each")
    parser.add_argument("--out", type=Path, help="a JSON file; beside it a .md with the table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    fr.set_num_threads(options.threads)
    records = [train(cell, count, options) for count in options.streams for cell in options.cells]
    table = write_up(records, options.threads)
    print(table)
    if options.out:
        about = machine.describe() | {
            "isa": fr.info()["isa"],
            "versions": {"fusedrnn": fr.__version__, "pytorch": torch.__version__},
            "load": machine.load_average(),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        whole = {"machine": about, "threads": options.threads, "trainings": records}
        options.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        head = (
            f"{about['cpu']}, family {about['family'].get('cpu family')}, {about['cores']} cores, "
            f"{about['isa']}, PyTorch {torch.__version__}; load average {about['load']:.1f}.\n\n"
        )
        options.out.with_suffix(".md").write_text(head + table + "\n", encoding="utf-8")
    return 0


def write_up(records: list[dict[str, Any]], threads: int) -> str:
    """The table in Markdown."""
    lines = [
        f"One cell of {HIDDEN}, {CHUNK} characters a step of each stream, threads: {threads}; "
        "PyTorch's after ours.",
        "",
        "| cell | streams | steps | seconds | PyTorch over ours | CPU seconds "
        "| bits per character, held out |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for r in records:
        ours, theirs = r["runs"]["fusedrnn"], r["runs"]["PyTorch"]
        lines.append(
            f"| {r['cell'].upper()} | {r['streams']} | {r['steps']} "
            f"| {ours['seconds']:.1f}, {theirs['seconds']:.1f} "
            f"| {theirs['seconds'] / ours['seconds']:.2f} "
            f"| {ours['cpu_seconds']:.1f}, {theirs['cpu_seconds']:.1f} "
            f"| {ours['bits_per_character']:.3f}, {theirs['bits_per_character']:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
