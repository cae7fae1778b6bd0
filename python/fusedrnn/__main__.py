"""python -m fusedrnn: `train` and the other commands. The program `fusedrnn` is the same."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence

from fusedrnn import _output, information
from fusedrnn._core import get_num_threads
from fusedrnn.information import __version__, describe

USAGE = """usage: python -m fusedrnn COMMAND

  train        train a model on your data: train --help lists the tasks
  generate     let a character model write (generate --help)
  predict      labels, sequences or forecasts of a trained model (predict --help)
  demo         train a character-level language model on English text (demo --help)
  flow         draw how gradients vanish and explode through time (flow --help)
  info         the version, the CPU instruction sets, the threads
  help         this page, as -h and --help
  --version    the version alone

of the C library that came along:

  --include        the folder of its headers
  --cmake-dir      fusedrnn_DIR, for find_package(fusedrnn CONFIG) in CMake
  --pkgconfig-dir  the folder of fusedrnn.pc"""

# Modules with a `main`, imported only when asked for: `info` should not wait for what others need.
COMMANDS = {
    "train": "fusedrnn.cli.train",
    "generate": "fusedrnn.cli.generate",
    "predict": "fusedrnn.cli.predict",
    "demo": "fusedrnn.cli.demo",
    "flow": "fusedrnn.cli.flow",
}
# What takes no argument.
ALONE = ("help", "-h", "--help", "--version", "info")
FOLDERS: dict[str, Callable[[], str]] = {
    "--include": information.get_include,
    "--cmake-dir": information.get_cmake_dir,
    "--pkgconfig-dir": information.get_pkgconfig_dir,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command given as arguments, by default those of the process; its exit status.

    2 where the command line, the environment, a file or the output cannot be used, also where the
    reader of the output has left; 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return _output.run(lambda: _run(arguments))


def _run(arguments: list[str]) -> int:
    first, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if first in COMMANDS or arguments == ["info"]:
        wrong = _wrong_environment()
        if wrong is not None:
            return _refuse(wrong)
    if first in COMMANDS:
        status: int = importlib.import_module(COMMANDS[first]).main(rest)
        return status
    match arguments:
        case ["help" | "-h" | "--help"] | ["info", "-h" | "--help"]:
            print(USAGE)
        case ["--version"]:
            print(f"fusedrnn {__version__}")
        case [("--include" | "--cmake-dir" | "--pkgconfig-dir") as folder]:
            return _print_folder(FOLDERS[folder])
        case ["info"]:
            print(describe())
        case [command, more, *_] if command in (*ALONE, *FOLDERS):
            return _refuse(f"{command}: expected no argument, got {more!r}\n\n{USAGE}")
        case _:
            return _refuse(f"expected a command, got {_named(arguments)}\n\n{USAGE}")
    return 0


def _named(arguments: list[str]) -> str:
    if not arguments:
        return "none"
    near = difflib.get_close_matches(arguments[0], [*COMMANDS, *ALONE, *FOLDERS], n=1)
    return f"{arguments[0]!r}" + (f"; did you mean {near[0]}?" if near else "")


def _print_folder(find: Callable[[], str]) -> int:
    try:
        print(find())
    except FileNotFoundError as error:
        return _refuse(str(error))
    return 0


def _wrong_environment() -> str | None:
    try:
        get_num_threads()
    except ValueError as error:  # FUSEDRNN_NUM_THREADS, which is read where it is first needed
        return str(error)
    return None


def _refuse(message: str) -> int:
    print(f"fusedrnn: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
