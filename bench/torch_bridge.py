"""What fusedrnn.torch costs and saves beside torch.nn: `python bench/torch_bridge.py`.

All on one thread. Overhead: a call of a small layer over the compiled module's own call on NumPy
arrays. One step: B = 1, H = I = 64, the layer and the cell, in inference and with gradients, and
steps of fusedrnn's own layers on arrays of several kinds. Training: forward, the gradient of a
given dy, at several shapes, as people write it: plain, of a padded batch with lengths (torch.nn:
PackedSequence), stacked in both directions. Results of both are compared first. Times are CPU times
of the process, the least of rounds that take turns: other work on the machine changes them little.

Memory: what a process of its own holds beyond its start, at most during forward and backward and
afterwards ("kept"), with as many results alive; beside that what the system may take at any time
("free", which counts as RSS until it does), and what is kept after `fusedrnn.release_memory()`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fusedrnn as fr
import fusedrnn.torch as bridge
from bench import machine
from bench.timing import least
from fusedrnn.torch.autograd import call
from fusedrnn.torch.plan import call_key, plan_of

SHAPES = (  # T, B, H = I
    *((128, 1, 64), (64, 16, 128), (64, 16, 256), (32, 64, 512), (32, 8, 64), (100, 4, 100)),
    *((16, 64, 128), (200, 32, 128), (256, 1, 256), (32, 32, 256), (50, 10, 333), (20, 8, 1024)),
)
LIMIT = 3e-5  # relative difference of results
MEMORY_SHAPE = (256, 64, 256)  # T, B, H = I
CALLS = 200  # in a row, of what takes microseconds
Run = Callable[[], Any]


def pair(name: str, *sizes: int, **options: Any) -> tuple[Any, Any]:
    """torch.nn's module and ours, of the same parameters."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*sizes, **options)
    torch.manual_seed(0)
    return theirs, getattr(bridge, name)(*sizes, **options)


def check(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    with torch.no_grad():
        error = float((ours - theirs).norm() / theirs.norm())
    if not error <= LIMIT:
        raise SystemExit(f"{name}: results differ by {error:.1e}")


def many(run: Run) -> Run:
    def calls() -> None:
        for _ in range(CALLS):
            run()

    return calls


def small(rounds: int, budget: float) -> dict[str, float]:
    """Microseconds of a call at T = B = 1, H = I = 64."""
    x, dy = torch.randn(1, 1, 64), torch.randn(1, 1, 64)
    x_t, h = x[0], torch.randn(1, 64)
    theirs, ours = pair("GRU", 64, 64)
    their_cell, our_cell = pair("GRUCell", 64, 64)
    their_lstm, our_lstm = pair("LSTMCell", 64, 64)
    check("GRU", ours(x)[0], theirs(x)[0])
    check("GRUCell", our_cell(x_t, h), their_cell(x_t, h))
    check("LSTMCell", our_lstm(x_t)[1], their_lstm(x_t)[1])
    key = call_key(ours._network, False, False, 0.0)
    network = plan_of(key).network("float32", False)
    weights = [w.detach() for w in ours.parameters()]
    arrays = tuple(w.numpy() for w in weights)
    x_np, dy_np = x.numpy(), dy.numpy()

    def core_training() -> Any:
        tape = network.forward(x_np, arrays, save=True)[3]
        assert tape is not None
        return tape.backward(dy_np, None, None, False)

    def inference(run: Run) -> Run:
        with torch.no_grad():
            return run()  # type: ignore[no-any-return]

    listed = [x, *weights, *[None] * 6]
    runs: dict[str, Run] = {
        "core, inference": lambda: network.forward(x_np, arrays),
        "operator, inference": lambda: torch.ops.fusedrnn.network(key, listed),
        "past the dispatcher, inference": lambda: call(key, listed, True),
        "GRU, inference": lambda: ours(x),
        "torch.nn.GRU, inference": lambda: theirs(x),
        "GRUCell, inference": lambda: our_cell(x_t, h),
        "torch.nn.GRUCell, inference": lambda: their_cell(x_t, h),
        "LSTMCell, inference": lambda: our_lstm(x_t, (h, h)),
        "torch.nn.LSTMCell, inference": lambda: their_lstm(x_t, (h, h)),
        "core, with reserve": lambda: network.forward(x_np, arrays, save=True),
        "GRU, with gradients": lambda: ours(x),
        "torch.nn.GRU, with gradients": lambda: theirs(x),
        "GRUCell, with gradients": lambda: our_cell(x_t, h),
        "torch.nn.GRUCell, with gradients": lambda: their_cell(x_t, h),
        "core, forward and backward": core_training,
        "GRU, forward and backward": lambda: step(ours, ours(x)[0], dy),
        "torch.nn.GRU, forward and backward": lambda: step(theirs, theirs(x)[0], dy),
    }

    def mode(name: str, run: Run) -> Run:
        repeated = many(run)
        return (lambda: inference(repeated)) if name.endswith("inference") else repeated

    runs |= steps()
    times = least({name: mode(name, run) for name, run in runs.items()}, rounds, budget)
    return {name: seconds / CALLS * 1e6 for name, seconds in times.items()}


def steps() -> dict[str, Run]:
    """A step of fusedrnn's layers on each kind of arrays, in inference."""
    runs: dict[str, Run] = {}
    for dtype in ("float32", "bfloat16"):
        layer = fr.GRU(64, 64, dtype=dtype, seed=0)
        frozen = layer.freeze()
        like = layer.parameters()["weight_ih_l0"].dtype
        kinds: dict[str, Callable[..., Any]] = {
            "NumPy": partial(np.zeros, dtype=like),
            "tensors": partial(torch.zeros, dtype=getattr(torch, dtype)),
        }
        for kind, zeros in kinds.items():
            x, h, y, h_n = zeros((1, 64)), zeros((1, 1, 64)), zeros((1, 64)), zeros((1, 1, 64))
            name = f"{kind} of {dtype}, inference"
            runs[f"frozen.step, {name}"] = partial(frozen.step, x, h)
            runs[f"frozen.step with out, {name}"] = partial(frozen.step, x, h, out=(y, h_n))
            runs[f"layer.step, {name}"] = partial(layer.step, x, h)
    return runs


def step(module: Any, y: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """Gradients, as an optimiser finds them."""
    module.zero_grad(set_to_none=True)
    torch.autograd.backward(y, dy)
    return y


def training(rounds: int, budget: float, shapes: int) -> list[dict[str, Any]]:
    """Milliseconds of forward and backward, ours and torch.nn's."""
    records = []
    for T, B, H in SHAPES[:shapes]:
        for name in ("RNN", "GRU", "LSTM"):
            for kind in ("plain", "lengths", "2 layers, bidirectional"):
                if kind != "plain" and (B == 1 or H >= 512):
                    continue
                options = {"num_layers": 2, "bidirectional": True} if "2" in kind else {}
                theirs, ours = pair(name, H, H, **options)
                x = torch.randn(T, B, H)
                dy = torch.randn(T, B, 2 * H if options else H)
                runs = _runs(theirs, ours, x, dy, kind == "lengths")
                check(f"{name} {kind}", runs["ours"]().detach(), runs["theirs"]().detach())
                times = least(runs, rounds, budget)
                record = {
                    "module": name,
                    "kind": kind,
                    "shape": (T, B, H),
                    "ms": times["ours"] * 1e3,
                    "torch_over_ours": times["theirs"] / times["ours"],
                }
                records.append(record)
                print(line(record), flush=True)
    return records


def _runs(
    theirs: Any, ours: Any, x: torch.Tensor, dy: torch.Tensor, padded: bool
) -> dict[str, Run]:
    if not padded:
        return {
            "ours": lambda: step(ours, ours(x)[0], dy),
            "theirs": lambda: step(theirs, theirs(x)[0], dy),
        }
    T, B, _ = x.shape
    lengths = torch.linspace(T, T // 4, B).long()

    def packed() -> torch.Tensor:
        y, _ = pad_packed_sequence(theirs(pack_padded_sequence(x, lengths))[0])
        return step(theirs, y, dy)

    return {"ours": lambda: step(ours, ours(x, lengths=lengths)[0], dy), "theirs": packed}


def memory_of(package: str, name: str, live: int) -> dict[str, float]:
    """Megabytes of this process, which has done nothing else."""
    T, B, H = MEMORY_SHAPE
    module = getattr(bridge if package == "fusedrnn.torch" else torch.nn, name)(H, H)
    module(torch.zeros(1, 1, H))[0].sum().backward()
    x = torch.randn(T, B, H)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins here
    before = _megabytes("status", "VmRSS")
    alive = []
    for _ in range(live):
        y, _ = module(x)
        y.sum().backward()
        alive.append(y)
    free = _megabytes("smaps_rollup", "LazyFree")
    found = {
        "peak": _megabytes("status", "VmHWM") - before,
        "kept": _megabytes("status", "VmRSS") - before - free,
        "free": free,
    }
    fr.release_memory()
    return found | {"released": _megabytes("status", "VmRSS") - before}


def _megabytes(file: str, name: str) -> float:
    lines = Path(f"/proc/self/{file}").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:"))


def memory(modules: int) -> list[dict[str, Any]]:
    """Of so many modules, each in a process of its own."""
    records = []
    for name in ("RNN", "GRU", "LSTM")[:modules]:
        for live in (1, 4):
            for package in ("fusedrnn.torch", "torch.nn"):
                command = [sys.executable, __file__, "--memory-of", package, name, str(live)]
                found = json.loads(subprocess.check_output(command, text=True))
                records.append({"package": package, "module": name, "live": live, **found})
                print(memory_line(records[-1]), flush=True)
    return records


def memory_line(record: dict[str, Any]) -> str:
    numbers = (f"{record[name]:.0f}" for name in ("peak", "kept", "free", "released"))
    return f"| {record['package']}.{record['module']} | {record['live']} | {' | '.join(numbers)} |"


def line(record: dict[str, Any]) -> str:
    shape = ", ".join(map(str, record["shape"]))
    return (
        f"| {record['module']} | {record['kind']} | {shape} | {record['ms']:.3f} | "
        f"{record['torch_over_ours']:.2f} |"
    )


def about_line(about: dict[str, Any]) -> str:
    """Where the tables come from."""
    return (
        f"{about['cpu']}, family {about['family'].get('cpu family')}, {about['cores']} cores, "
        f"{about['isa']}, PyTorch {about['versions']['pytorch']}; one thread, the least CPU time "
        f"of calls; load average {about['load']:.1f}."
    )


HEAD_SMALL = "| T = B = 1, H = 64 | us |\n|---|---:|"
HEAD_MEMORY = (
    "| T, B, H = {}, {}, {}; MB | results alive | peak | kept | free | released |\n"
    "|---|---:|---:|---:|---:|---:|"
).format(*MEMORY_SHAPE)
HEAD = "| | | T, B, H | ms | torch.nn over ours |\n|---|---|---|---:|---:|"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--min-time", type=float, default=0.2, help="seconds a round and run")
    parser.add_argument(
        "--shapes",
        type=int,
        default=len(SHAPES),
        help="how many, and modules of memory",
    )
    parser.add_argument("--out", type=Path, help="a JSON file; beside it a .md with the tables")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)  # a process of `memory`
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    fr.set_num_threads(1)
    if options.memory_of:
        package, name, live = options.memory_of
        print(json.dumps(memory_of(package, name, int(live))))
        return 0
    found = small(options.rounds, options.min_time)
    rows = [f"| {name} | {time:.1f} |" for name, time in found.items()]
    print("\n".join([HEAD_SMALL, *rows, "", HEAD]), flush=True)
    records = training(options.rounds, options.min_time, options.shapes)
    print(f"\n{HEAD_MEMORY}", flush=True)
    held = memory(options.shapes)
    if options.out:
        about = machine.describe() | {
            "isa": fr.info()["isa"],
            "versions": {"fusedrnn": fr.__version__, "pytorch": torch.__version__},
            "load": machine.load_average(),
        }
        whole = {"machine": about, "small_us": found, "training": records, "memory": held}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        parts = [about_line(about), "", HEAD_SMALL, *rows, "", HEAD, *map(line, records)]
        table = "\n".join([*parts, "", HEAD_MEMORY, *map(memory_line, held)])
        options.out.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
