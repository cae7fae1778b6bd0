"""Small problems of every cell on the GPU, held against the reference: first contact.

Each is called several times with the same arrays: of three calls at the same addresses the second
is captured as a graph and the third replays it. A product that cuBLASLt was to compute and did not
is a failure, too.
`--few`: three of them, for tools under which everything is slow.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: `bench` is a package two folders up
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from bench.gpu.fusedrnn_peer import FusedRnn
from bench.gpu.peer import Peer, UnavailableError
from bench.gpu.place import EmulatedPlace, Place
from bench.gpu.reference import MismatchError, reference, verify
from bench.gpu.scenarios import CASE_SETS, Case, random_problem

CASES = CASE_SETS["smoke"]
FEW = tuple(
    Case.parse(f"training/{rest}")
    for rest in ("float32/lstm:8,3,32/lengths", "bfloat16/lstm:8,3,32", "bfloat16/gru:8,3,32")
)
# The first may be given other addresses than those that come; the second makes the last three.
CALLS = 4


def check(
    peer: Peer,
    case: Case,
    place: Place | None = None,
    calls: int = CALLS,
    met: list[Case] | None = None,
) -> str:
    """What is wrong with the peer's results; empty where they are right.

    The case is added to `met` where the last three calls got the same addresses, as far as the
    results show: the last one then replayed the library's graph.
    """
    place = place or Place()
    problem = random_problem(case, place.device)
    expected = {name: tensor.cpu() for name, tensor in reference(problem).items()}
    (variant, *_) = peer.variants(case)
    job = variant.make([place.given(problem)])
    first: dict[str, Any] = {}
    addresses: list[list[int]] = []
    for number in range(1, calls + 1):
        try:
            # Nothing of a call is left on the device when the next one begins, which so is given
            # the same addresses: by these the library finds its graph.
            results = job.collect(job.calls[0]())
            found = {name: place.read(array) for name, array in results.items()}
            addresses.append([place.address(array) for array in results.values()])
            del results
            place.settle()
            verify(found, expected, case.precision)
        except (MismatchError, RuntimeError, TypeError, ValueError) as why:
            return f"call {number}: {type(why).__name__}: {why}"
        first = first or found
        other = [name for name, tensor in found.items() if not tensor.equal(first[name])]
        if other:
            return f"call {number}: other bits than call 1 in {', '.join(other)}"
    if met is not None and len(addresses) > 2 and addresses[-3:] == [addresses[-1]] * 3:
        met.append(case)
    return ""


def plain_products(asked_for: bool) -> str:
    """What is wrong with who computed the products; empty where nothing is.

    `asked_for`: the plain kernel, by FUSEDRNN_CUDA_GEMM.
    """
    import fusedrnn  # noqa: PLC0415 (the peer says what is missing)

    known = fusedrnn.info()
    if asked_for or not known["cuda_plain_products"]:
        return ""
    return f"{known['cuda_plain_products']} products by the plain kernel: {known['cuda']}"


def main(arguments: Sequence[str] | None = None) -> int:
    """1 where a result is wrong or not cuBLASLt's, 3 where there is no GPU."""
    parser = argparse.ArgumentParser(prog="bench/gpu/smoke.py", description=__doc__)
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--calls", type=int, default=CALLS, help="of a case, default %(default)s")
    parser.add_argument("--rehearse", action="store_true", help="over the emulator")
    options = parser.parse_args(arguments)
    place = Place()
    try:
        peer = FusedRnn("fusedrnn")
        if options.rehearse:
            place = EmulatedPlace()
    except UnavailableError as why:
        print(why)
        return 3
    print(peer.version(), flush=True)
    cases = FEW if options.few else CASES
    met: list[Case] = []
    found = {case: check(peer, case, place, options.calls, met) for case in cases}
    wrong = {case: reason for case, reason in found.items() if reason}
    for case, reason in wrong.items():
        print(f"{case}: {reason}")
    fallback = plain_products(os.environ.get("FUSEDRNN_CUDA_GEMM") == "plain")
    if fallback:
        print(fallback)
    print(f"{len(met)} of {len(cases)} with the same addresses in the last three calls")
    print(f"{len(cases) - len(wrong)} of {len(cases)} right, {options.calls} calls each")
    return 1 if wrong or fallback else 0


if __name__ == "__main__":
    sys.exit(main())
