"""``python -m fusedrnn predict``: what a model of ``train`` says to new data, as CSV."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Sequence

from fusedrnn.cli import output
from fusedrnn.cli import run as runs
from fusedrnn.cli import settings as s
from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.parser import Parser, add_settings, path_of
from fusedrnn.cli.settings import Setting
from fusedrnn.cli.tasks import Source
from fusedrnn.cli.tasks.seq2seq import Sequences

BEAM = Setting("beam", 4, s.SIZE, "of seq2seq: beginnings that are gone on with", "writing")


def main(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = Parser(
        "fusedrnn predict",
        description="Labels, sequences or forecasts of a model of train, as CSV. A file has the "
        "columns that were trained with, what is to be predicted may be missing; of one that is no "
        "CSV, TSV or JSON lines each line is an input.",
    )
    parser.add_argument("model", type=path_of, metavar="MODEL", help="a folder of train, or a file")
    # With a default argparse knows that none is required.
    parser.add_argument(
        "inputs", nargs="*", default=(), metavar="INPUT", help="texts, in place of a file"
    )
    parser.add_argument("--data", type=path_of, metavar="FILE", help="-: standard input")
    parser.add_argument("--out", type=path_of, metavar="FILE", help="write a new file instead")
    add_settings(parser, [BEAM])
    options = parser.parse_args(argv)
    return output.run("predict", lambda: _predict(options))


def _predict(options: Namespace) -> int:
    if (options.data is None) == (not options.inputs):
        got = "both" if options.inputs else "neither"
        raise CommandError(f"expected --data FILE or INPUT, got {got}")
    if options.out:
        output.check_new(options.out)
    task = runs.load("MODEL", output.model_file(options.model), whole=False).task
    source = None if options.data is None else Source.read("--data", options.data)
    if isinstance(task, Sequences):
        beam = BEAM.default if options.beam is None else options.beam
        table = task.predict(source, options.inputs, beam)
    elif options.beam is not None:
        raise CommandError(f"--beam {options.beam}: expected a model of seq2seq, got a {task.name}")
    else:
        table = task.predict(source, options.inputs)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    if options.out:
        output.write_new(options.out, text.getvalue())
    else:
        print(text.getvalue(), end="")
    return 0
