"""``python -m fusedrnn demo``: a character model of `train char-lm` in one command, and its text.

Progress and speed go to stderr, results to stdout: with one seed, stdout is the same every time.
"""

from __future__ import annotations

import statistics
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import fusedrnn
from fusedrnn.cli import characters, files, loop, output, store
from fusedrnn.cli import run as runs
from fusedrnn.cli import settings as s
from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.interrupt import Interrupt, ctrl_c_as_request
from fusedrnn.cli.parser import Parser, add_settings, path_of
from fusedrnn.cli.progress import Progress
from fusedrnn.cli.run import Run
from fusedrnn.cli.settings import Setting
from fusedrnn.cli.tasks.base import Source
from fusedrnn.cli.tasks.char_lm import CharLM, bits_per_character

#: Updates that the loss at the end is averaged over.
RECENT = 50

_SHOWN = ("cell", "hidden", "layers", "embedding", "batch", "chunk", "lr", "clip", "seed")
_OF_TASK = {x.name: x for x in CharLM.settings}
STEPS = Setting("steps", 600, s.COUNT, "updates, on top of a loaded model's; 0: evaluate only")
SETTINGS = (
    *(_OF_TASK[name] for name in _SHOWN),
    STEPS,
    Setting("generate", 500, s.COUNT, "characters to write at the end", "text"),
    Setting("temperature", 0.7, s.LEAST, "below 1 the likely becomes likelier; 0: always the "
            "likeliest", "text"),
)  # fmt: skip


@dataclass
class Report:
    """What happened in `train`; one entry an update."""

    bits: list[float] = field(default_factory=list)  # per character
    norms: list[float] = field(default_factory=list)  # before clipping
    interrupted: bool = False
    seconds: float = 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status.

    0; 1 where training came to nothing; 2 where an option or a file cannot be used, or the model
    could not be saved; 130 after Ctrl-C. Ctrl-C during training is no error: the loop ends, and
    what was trained is saved, evaluated and used.
    """
    parser = Parser(
        "fusedrnn demo",
        description="Train a character-level language model and let it write. Ctrl-C ends the "
        "training early and keeps what was trained.",
        epilog="The sizes of a loaded model are fixed; --batch, --chunk, --lr, --clip and --seed "
        "default to what it was trained with.",
    )
    source = "UTF-8 text to learn; -: standard input (default: Python's own help topics)"
    parser.add_argument("--text", type=path_of, metavar="FILE", help=source)
    parser.add_argument("--save", type=path_of, metavar="FILE", help="write a checkpoint")
    parser.add_argument("--load", type=path_of, metavar="FILE", help="go on from a checkpoint")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_settings(parser, SETTINGS)
    options = parser.parse_args(argv)
    return output.run("demo", lambda: _run(options))


def _run(options: Namespace) -> int:
    # All that can be wrong with the files comes first: nothing trained is lost by it.
    if options.save:
        files.check_target(options.save, options.text)
    if options.text:
        source = Source.read("--text", options.text)
        source = Source("--text", options.text, characters.normalise(source.text))
    else:
        source = Source("", Path("pydoc_data.topics"), characters.default_text())
    given = {x.name: getattr(options, x.name) for x in SETTINGS}
    given = {name: value for name, value in given.items() if value is not None}
    steps = given.pop("steps", STEPS.default)
    written = {x.name: given.pop(x.name, x.default) for x in SETTINGS if x.group == "text"}
    run, found = (_resume if options.load else _begin)(options, source, given, steps)
    task: Any = run.task
    if options.save:
        store.rehearse("--save", options.save, run)
    print(f"text: {source.path}, {found}")
    parameters = sum(value.size for value in task.model.parameters().values())
    so_far = f", {run.update:,} updates so far" if run.update else ""
    print(f"model: {task.model_words()}, {parameters:,} parameters{so_far}", flush=True)

    status = 0
    with ctrl_c_as_request() as interrupt:
        report = train(run, steps, interrupt, options.quiet)
        if options.save:
            try:
                store.save("--save", options.save, run)
                if not options.quiet:
                    print(f"saved: {options.save}", file=sys.stderr)
            except CommandError as error:  # a disk filled up, say: the results can still be shown
                print(f"fusedrnn demo: {error}", file=sys.stderr)
                status = error.exit_status
    _print_training(report, run, steps, options.quiet)

    bits = bits_per_character(task.model, task.validation)
    unigram = characters.unigram_entropy(task.validation)
    print(f"validation: {bits:.3f} bits per character (unigram entropy {unigram:.3f})")
    if count := written["generate"]:
        generator = np.random.default_rng(task.values["seed"])
        print("generated:\n")
        print("".join(task.generate("", count, generator, temperature=written["temperature"])))
    return status


def _begin(
    _options: Namespace, source: Source, given: dict[str, Any], steps: int
) -> tuple[Run, str]:
    defaults = {x.name: x.default for x in CharLM.settings}
    values = defaults | given | {"steps": steps}
    data = CharLM.parse(source, values)
    task = runs.build(CharLM, values, CharLM.learn(data, values))
    optimizer = fusedrnn.Adam(task.model.parameters())
    return Run(task, optimizer, str(source.path), source.fingerprint), task.use(data)


def _resume(
    options: Namespace, source: Source, given: dict[str, Any], steps: int
) -> tuple[Run, str]:
    run = runs.load("--load", options.load)
    task = run.task
    if not isinstance(task, CharLM):
        raise CommandError(f"--load {options.load}: expected a char-lm, got a {task.name}")
    before = task.values
    for name in ("cell", "hidden", "layers", "embedding"):
        if given.get(name, before[name]) != before[name]:
            raise CommandError(
                f"--{name} {given[name]}: the model of --load {options.load} has {before[name]}"
            )
    task.values = {**before, **given, "steps": run.update + steps}
    same_cut = all(task.values[name] == before[name] for name in ("batch", "chunk", "validation"))
    if run.fingerprint != source.fingerprint:
        print("note: the checkpoint was trained on another text", file=sys.stderr)
    if run.fingerprint != source.fingerprint or not same_cut:
        run.source, run.fingerprint = str(source.path), source.fingerprint
        task.restart(run.update)
    return run, task.use(task.parse(source, task.values))


def train(run: Run, steps: int, interrupt: Interrupt, quiet: bool) -> Report:
    """Do ``steps`` more updates, or fewer where ``interrupt`` is requested."""
    report, end = Report(), run.update + steps
    task = run.task
    with Progress(run.update, end, task.unit, task.loss_name, quiet) as progress:
        while run.update < end:
            if interrupt.requested:
                report.interrupted = True
                break
            bits, norm, amount = loop.update(run)
            report.bits.append(bits)
            report.norms.append(norm)
            progress.update(bits, amount)
        report.seconds = progress.seconds
    return report


def _print_training(report: Report, run: Run, steps: int, quiet: bool) -> None:
    values, done = run.task.values, len(report.bits)
    if report.interrupted:
        print(f"interrupted: {done} of {steps} updates done", file=sys.stderr)
    if not done:
        return
    count = done * values["batch"] * values["chunk"]
    if not quiet:
        print(
            f"speed: {count / report.seconds:,.0f} characters/s, "
            f"{report.seconds:.1f} s of training",
            file=sys.stderr,
        )
    last = statistics.fmean(report.bits[-RECENT:])
    clipped = sum(norm > values["clip"] for norm in report.norms)
    print(
        f"training: {done} updates, {count:,} characters, {last:.3f} bits per character at the end"
    )
    print(
        f"gradient norm: median {statistics.median(report.norms):.1f}, "
        f"maximum {max(report.norms):.1f}, "
        f"clipped to {values['clip']:g} in {clipped / done:.1%} of the updates"
    )
