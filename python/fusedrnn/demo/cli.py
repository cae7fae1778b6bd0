"""``python -m fusedrnn demo``: options in, a trained model and a few lines of results out.

Progress and speed go to stderr, results to stdout: with one seed, stdout is the same every time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import fusedrnn
from fusedrnn.cli import files
from fusedrnn.cli.errors import CommandError, TrainingError
from fusedrnn.demo import arguments as defaults
from fusedrnn.demo import checkpoint
from fusedrnn.demo.generate import generate
from fusedrnn.demo.text import (
    UNKNOWN,
    Streams,
    Vocabulary,
    default_text,
    fingerprint,
    read_text,
    split,
    unigram_entropy,
)
from fusedrnn.demo.train import (
    RECENT_STEPS,
    Report,
    Session,
    TrainingOptions,
    ctrl_c_as_request,
    evaluate,
    train,
)
from fusedrnn.models import CharModel

T = TypeVar("T")

INTERRUPTED = 130  # as shells report a process that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status.

    0; 1 where training came to nothing; 2 where an option or a file cannot be used, or the model
    could not be saved; 130 after Ctrl-C. Ctrl-C during training is no error: the loop ends, and
    what was trained is saved, evaluated and used.
    """
    arguments = defaults.parser().parse_args(argv)
    try:
        return _run(arguments)
    except CommandError as error:
        _complain(error)
        return error.exit_status
    except MemoryError as error:
        _complain(str(error) or "out of memory")
        return TrainingError.exit_status
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
    # All that can be wrong with the files comes first: nothing trained is lost by it.
    if arguments.save:
        files.check_target(arguments.save, arguments.text)
    source, named = "pydoc_data.topics", "the help topics of this Python"
    if arguments.text:
        source, named = str(arguments.text), f"--text {arguments.text}"
    text = read_text(arguments.text) if arguments.text else default_text()
    training, validation = split(text)
    if arguments.load:
        session = _resume(arguments, fingerprint(text))
    else:
        session = _begin(arguments, named, training, fingerprint(text))
    streams = _streams(named, len(text), session, training)
    indices = session.vocabulary.encode(validation)
    if arguments.save:
        checkpoint.rehearse(arguments.save, session)
    _print_setting(source, text, session)

    status = 0
    with ctrl_c_as_request() as interrupt:
        report = train(session, streams, arguments.steps, interrupt, arguments.quiet)
        if arguments.save:
            try:
                checkpoint.save(arguments.save, session)
                if not arguments.quiet:
                    print(f"saved: {arguments.save}", file=sys.stderr)
            except CommandError as error:  # a disk filled up, say: the results can still be shown
                _complain(error)
                status = error.exit_status
    _print_training(report, session, arguments)

    bits, unigram = evaluate(session.model, indices), unigram_entropy(indices)
    print(f"validation: {bits:.3f} bits per character (unigram entropy {unigram:.3f})")
    if arguments.generate:
        count, temperature = arguments.generate, arguments.temperature
        print("generated:\n")
        print(generate(session.model, session.vocabulary, count, temperature, session.options.seed))
    return status


def _complain(message: object) -> None:
    print(f"fusedrnn demo: {message}", file=sys.stderr)


def _begin(arguments: argparse.Namespace, named: str, training: str, text: str) -> Session:
    options = _options(arguments, defaults.TRAINING)
    if not training.strip(UNKNOWN):
        raise CommandError(f"{named}: too short: no character to train on")
    vocabulary = Vocabulary.of(training)
    try:
        model = CharModel(
            len(vocabulary),
            cell=_given(arguments, "cell", defaults.CELL),
            embedding=_given(arguments, "embedding", defaults.EMBEDDING),
            hidden=_given(arguments, "hidden", defaults.HIDDEN),
            layers=_given(arguments, "layers", defaults.LAYERS),
            seed=options.seed,
        )
    except (ValueError, OverflowError) as error:  # sizes beyond what an array can have
        raise CommandError(str(error)) from None
    return Session(model, vocabulary, fusedrnn.Adam(model.parameters()), options, text)


def _resume(arguments: argparse.Namespace, text: str) -> Session:
    session = checkpoint.load(arguments.load)
    for name in ("cell", "hidden", "layers", "embedding"):
        saved = session.model.config()[name]
        if _given(arguments, name, saved) != saved:
            raise CommandError(
                f"--{name} {getattr(arguments, name)}: "
                f"the model of --load {arguments.load} has {saved}"
            )
    before = session.options
    session.options = _options(arguments, before)
    same_cut = (before.batch, before.chunk) == (session.options.batch, session.options.chunk)
    if session.text != text:
        print("note: the checkpoint was trained on another text", file=sys.stderr)
    if session.text != text or not same_cut:
        session.text, session.position, session.state = text, 0, None
    return session


def _options(arguments: argparse.Namespace, base: TrainingOptions) -> TrainingOptions:
    return replace(
        base,
        batch=_given(arguments, "batch", base.batch),
        chunk=_given(arguments, "chunk", base.chunk),
        lr=_given(arguments, "lr", base.lr),
        clip=_given(arguments, "clip", base.clip),
        seed=_given(arguments, "seed", base.seed),
    )


def _streams(named: str, characters: int, session: Session, training: str) -> Streams:
    batch, chunk = session.options.batch, session.options.chunk
    if len(training) < batch * chunk + 1:
        raise CommandError(
            f"{named}: too short: {characters} characters, {len(training)} of them to train on; "
            f"--batch {batch} and --chunk {chunk} need {batch * chunk + 1}"
        )
    return Streams(session.vocabulary.encode(training), batch, chunk)


def _print_setting(source: str, text: str, session: Session) -> None:
    config, vocabulary = session.model.config(), session.vocabulary
    training, validation = map(len, split(text))
    unknown = int((vocabulary.encode(text) == 0).sum())
    print(
        f"text: {source}, {len(text):,} characters ({training:,} to train on, "
        f"{validation:,} held out), vocabulary {len(vocabulary)}"
        + (f", {unknown:,} characters outside it" if unknown else "")
    )
    parameters = sum(value.size for value in session.model.parameters().values())
    print(
        f"model: {config['cell']}, layers {config['layers']}, hidden {config['hidden']}, "
        f"embedding {config['embedding']}, {parameters:,} parameters"
        + (f", {session.adam.updates:,} updates so far" if session.adam.updates else ""),
        flush=True,
    )


def _print_training(report: Report, session: Session, arguments: argparse.Namespace) -> None:
    options, done = session.options, len(report.bits)
    if report.interrupted:
        print(f"interrupted: {done} of {arguments.steps} updates done", file=sys.stderr)
    if not done:
        return
    characters = done * options.batch * options.chunk
    if not arguments.quiet:
        print(
            f"speed: {characters / report.seconds:,.0f} characters/s, "
            f"{report.seconds:.1f} s of training",
            file=sys.stderr,
        )
    last = statistics.fmean(report.bits[-RECENT_STEPS:])
    print(
        f"training: {done} updates, {characters:,} characters, "
        f"{last:.3f} bits per character at the end"
    )
    print(
        f"gradient norm: median {statistics.median(report.norms):.1f}, "
        f"maximum {max(report.norms):.1f}, "
        f"clipped to {options.clip:g} in {report.clipped / done:.1%} of the updates"
    )


def _given(arguments: argparse.Namespace, name: str, default: T) -> T:
    value: T | None = getattr(arguments, name)
    return default if value is None else value
