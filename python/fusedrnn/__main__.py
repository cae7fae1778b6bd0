"""python -m fusedrnn: `info`, `demo`, `flow` or `help`. The program `fusedrnn` is the same."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

from fusedrnn import _output, information
from fusedrnn._core import get_num_threads
from fusedrnn.information import __version__, describe

USAGE = """usage: python -m fusedrnn COMMAND

  info         the version, the CPU instruction sets, the threads
  demo         train a character-level language model on English text (demo --help)
  flow         draw how gradients vanish and explode through time (flow --help)
  help         this page, as -h and --help
  --version    the version alone

of the C library that came along:

  --include        the folder of its headers
  --cmake-dir      fusedrnn_DIR, for find_package(fusedrnn CONFIG) in CMake
  --pkgconfig-dir  the folder of fusedrnn.pc"""

# What takes no argument.
ALONE = ("help", "-h", "--help", "--version", "info")
FOLDERS: dict[str, Callable[[], str]] = {
    "--include": information.get_include,
    "--cmake-dir": information.get_cmake_dir,
    "--pkgconfig-dir": information.get_pkgconfig_dir,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command given as arguments, by default those of the process; its exit status.

    2 where the command line, the environment, a file or the output cannot be used, and 1 where the
    reader of the output has left.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return _output.run(lambda: _run(arguments))


def _run(arguments: list[str]) -> int:
    match arguments:
        case ["help" | "-h" | "--help"] | ["info", "-h" | "--help"]:
            print(USAGE)
        case ["--version"]:
            print(f"fusedrnn {__version__}")
        case [("--include" | "--cmake-dir" | "--pkgconfig-dir") as folder]:
            return _print_folder(FOLDERS[folder])
        case ["info"] | ["demo" | "flow", *_] if (wrong := _wrong_environment()) is not None:
            return _refuse(wrong)
        case ["info"]:
            print(describe())
        case ["demo" | "flow" as command, *rest]:
            # Only now, for `info` should not wait for what the others need.
            module = "fusedrnn.demo.cli" if command == "demo" else "fusedrnn.cli.flow"
            status: int = importlib.import_module(module).main(rest)
            return status
        case [command, more, *_] if command in (*ALONE, *FOLDERS):
            return _refuse(f"{command}: expected no argument, got {more!r}\n\n{USAGE}")
        case _:
            got = repr(arguments[0]) if arguments else "none"
            return _refuse(f"expected a command, info, demo, flow or help, got {got}\n\n{USAGE}")
    return 0


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
