"""Small problems of every cell on the GPU, held against the reference: first contact.

`--few`: one of each kind alone, for tools under which everything is slow.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script: `bench` is a package two folders up
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from bench.gpu.fusedrnn_peer import FusedRnn
from bench.gpu.peer import Peer, UnavailableError
from bench.gpu.reference import MismatchError, reference, verify
from bench.gpu.scenarios import CASE_SETS, Case, random_problem

CASES = CASE_SETS["smoke"]
FEW = tuple(case for case in CASES if case.scenario == "training" and case.lengths) + tuple(
    case for case in CASES if case.scenario == "training" and case.precision == "bfloat16"
)


def check(peer: Peer, case: Case, device: str = "cuda") -> str:
    """What is wrong with the peer's results; empty where they are right."""
    problem = random_problem(case, device)
    (variant, *_) = peer.variants(case)
    job = variant.make([problem])
    try:
        verify(job.collect(job.calls[0]()), reference(problem), case.precision)
    except (MismatchError, RuntimeError, TypeError, ValueError) as why:
        return f"{type(why).__name__}: {why}"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """1 where a result is wrong, 3 where there is no GPU."""
    parser = argparse.ArgumentParser(prog="bench/gpu/smoke.py", description=__doc__)
    parser.add_argument("--few", action="store_true")
    options = parser.parse_args(arguments)
    try:
        peer = FusedRnn("fusedrnn")
    except UnavailableError as why:
        print(why)
        return 3
    cases = FEW if options.few else CASES
    found = {case: check(peer, case) for case in cases}
    wrong = {case: reason for case, reason in found.items() if reason}
    for case, reason in wrong.items():
        print(f"{case}: {reason}")
    print(f"{len(cases) - len(wrong)} of {len(cases)} right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
