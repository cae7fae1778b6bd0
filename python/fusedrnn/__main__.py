"""python -m fusedrnn: `info` or `demo`."""

from __future__ import annotations

import sys

from fusedrnn.information import describe

USAGE = """usage: python -m fusedrnn COMMAND

  info    the version, the CPU instruction sets, the threads
  demo    train a character-level language model on English text (demo --help)"""


def main(argv: list[str] | None = None) -> int:
    """Run a command given as arguments, by default those of the process; its exit status."""
    match sys.argv[1:] if argv is None else argv:
        case ["info"]:
            print(describe())
            return 0
        case ["demo", *rest]:
            # Only now, for `info` should not wait for what the demo needs.
            from fusedrnn.demo.cli import main as demo  # noqa: PLC0415

            return demo(rest)
        case ["-h" | "--help"]:
            print(USAGE)
            return 0
        case _:
            print(USAGE, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
