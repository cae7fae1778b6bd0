"""``python -m fusedrnn generate``: text from a model of ``train char-lm``."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fusedrnn.cli import output, reading
from fusedrnn.cli import run as runs
from fusedrnn.cli import settings as s
from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.parser import Parser, add_settings, path_of, values_of
from fusedrnn.cli.settings import Setting
from fusedrnn.cli.tasks.char_lm import CharLM

SETTINGS = (
    Setting("count", 500, s.COUNT, "characters to write", "writing"),
    Setting("temperature", 0.7, s.LEAST, "below 1 the likely becomes likelier; 0: always the "
            "likeliest", "writing"),
    Setting("top-k", None, s.SIZE, "draw from so many likeliest characters only", "writing"),
    Setting("top-p", None, s.CHANCE, "draw from the likeliest that have this share of all "
            "probability", "writing"),
    Setting("seed", 0, s.COUNT, "another one, another text", "writing"),
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = Parser(
        "fusedrnn generate",
        description="Let a character model write, to standard output as it is drawn.",
    )
    parser.add_argument("model", type=path_of, metavar="MODEL", help="a folder of train, or a file")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="go on with it; -: read it")
    parser.add_argument("--out", type=path_of, metavar="FILE", help="write a new file instead")
    add_settings(parser, SETTINGS)
    options = parser.parse_args(argv)
    return output.run("generate", lambda: _generate(options))


def _generate(options: Namespace) -> int:
    given = vars(options)
    values = values_of(options, SETTINGS)
    if given["out"]:
        output.check_new(given["out"])
    task = runs.load("MODEL", output.model_file(given["model"]), whole=False).task
    if not isinstance(task, CharLM):
        raise CommandError(f"MODEL {given['model']}: expected a char-lm, got a {task.name}")
    prompt = given["prompt"]
    if prompt == "-":
        prompt = reading.read_text("--prompt", Path("-"))
    written = task.generate(
        prompt,
        values["count"],
        np.random.default_rng(values["seed"]),
        temperature=values["temperature"],
        top_k=values["top-k"],
        top_p=values["top-p"],
    )
    if given["out"]:
        output.write_new(given["out"], prompt + "".join(written) + "\n")
        return 0
    print(prompt, end="", flush=True)
    terminal = sys.stdout.isatty()
    for character in written:
        print(character, end="", flush=terminal)
    print()
    return 0
