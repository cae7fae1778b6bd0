"""What options and newer cells cost, and what people have today: `python bench/options.py`.

For each entry, forward and backward of one layer on one thread: ours, ours over the plain cell, and
a loop in Python over PyTorch's operations that computes the same, over ours. Where PyTorch has a
call of its own (packed sequences, dropout between layers), that is the peer. The outputs of both
are compared first. Derivatives along a direction stand beside what they differentiate: forward mode
over a forward pass, double backward over a backward pass (the peer's run has all of its passes).
Times are CPU times of the process, the least of rounds that take turns: other work on the machine
changes them little. Our arrays lie elsewhere in every round, as how they lie to each other changes
a call of a small cell by up to 7 %.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch

import fusedrnn as fr
from bench import machine
from bench.timing import least

SHAPES = ((128, 1, 64), (64, 4, 128), (128, 16, 256))  # T, B, H = I
LIMIT = 3e-5  # relative difference of y
PAGE, LINE = 4096, 64  # bytes
Run = Callable[[], Any]
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Entry:
    """An option: our function's arguments, the plain entry, and the loop that people write.

    `step(a, h, others, weights)` returns the next states, h first; a is W_ih x + b_ih, of cells
    with layer normalisation W_ih x.
    """

    name: str
    cell: str  # our function
    gates: int
    step: Callable[..., tuple[torch.Tensor, ...]] | None
    plain: str = ""  # the entry that it adds an option to, or differentiates
    part: str = "training"  # or "inference", "backward", "jvp", "double_backward"
    arguments: Mapping[str, Any] | None = None
    backward: Mapping[str, Any] | None = None
    extra: Mapping[str, str] | None = None  # parameters beyond the usual ones: their shapes
    recurrent: bool = True
    lengths: bool = False
    masked: bool = False  # of each sequence one step is hidden
    layer: str = ""  # where options are a layer's: its class, that trains


def _limited(limit: float | None) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda v: v if limit is None else v.clamp(-limit, limit)


def _lstm(**options: Any) -> Callable[..., tuple[torch.Tensor, ...]]:
    def step(a: Any, h: Any, others: Any, w: Any) -> tuple[torch.Tensor, ...]:
        (c,) = others
        u = a + h @ w["w_hh"].T + w["b_hh"]
        if options.get("coupled"):
            i, g, o = u.chunk(3, -1)
            f = None
        else:
            i, f, g, o = u.chunk(4, -1)
        peepholes = options.get("peephole")
        if peepholes:
            p_i, p_f, p_o = w["w_peephole"].chunk(3)
            i, f = i + p_i * c, f + p_f * c
        cut = _limited(options.get("clip"))
        i = torch.sigmoid(cut(i))
        f = 1 - i if f is None else torch.sigmoid(cut(f))
        c = f * c + i * torch.tanh(cut(g))
        if options.get("cell_clip"):
            c = c.clamp(-options["cell_clip"], options["cell_clip"])
        if peepholes:
            o = o + p_o * c
        h = torch.sigmoid(cut(o)) * torch.tanh(c)
        return (h @ w["w_hr"].T if "w_hr" in w else h), c

    return step


def _recurrent(h: Any, w: Any) -> torch.Tensor:
    """W_hh h, where w_hh has fewer columns than there are units by heads."""
    rows, depth = w["w_hh"].shape
    heads = h.shape[-1] // depth
    if heads == 1:
        return torch.matmul(h, w["w_hh"].T)
    blocks = w["w_hh"].view(-1, heads, depth, depth)
    u: torch.Tensor = torch.einsum("gkij,bkj->bgki", blocks, h.view(len(h), heads, depth))
    return u.reshape(len(h), rows)


def _gru(limit: float | None = None) -> Callable[..., tuple[torch.Tensor, ...]]:
    def step(a: Any, h: Any, others: Any, w: Any) -> tuple[torch.Tensor, ...]:
        cut = _limited(limit)
        u = _recurrent(h, w) + w["b_hh"]
        (a_r, a_z, a_n), (u_r, u_z, u_n) = a.chunk(3, -1), u.chunk(3, -1)
        r, z = torch.sigmoid(cut(a_r + u_r)), torch.sigmoid(cut(a_z + u_z))
        n = torch.tanh(cut(a_n + r * u_n))
        return (n + z * (h - n),)

    return step


def _indrnn(a: Any, h: Any, others: Any, w: Any) -> tuple[torch.Tensor, ...]:
    return (torch.relu(a + w["w_hh"] * h),)


def _mingru(a: Any, h: Any, others: Any, w: Any) -> tuple[torch.Tensor, ...]:
    z, v = a.chunk(2, -1)
    z = torch.sigmoid(z)
    v = torch.where(v >= 0, v + 0.5, torch.sigmoid(v))
    return (h + z * (v - h),)


def _slstm(a: Any, h: Any, others: Any, w: Any) -> tuple[torch.Tensor, ...]:
    c, n, m = others
    i, f, z, o = (a + _recurrent(h, w)).chunk(4, -1)
    log_f = torch.nn.functional.logsigmoid(f)
    new_m = torch.maximum(log_f + m, i)
    i, f = torch.exp(i - new_m), torch.exp(log_f + m - new_m)
    c, n = f * c + i * torch.tanh(z), f * n + i
    return torch.sigmoid(o) * (c / n), c, n, new_m


def _lstm_layer_norm(a: Any, h: Any, others: Any, w: Any) -> tuple[torch.Tensor, ...]:
    (c,) = others
    norm = torch.nn.functional.layer_norm
    a = norm(a, a.shape[-1:], w["g_ih"], w["b_ih"])
    u = h @ w["w_hh"].T
    i, f, g, o = (a + norm(u, u.shape[-1:], w["g_hh"], w["b_hh"])).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(norm(c, c.shape[-1:], w["g_c"], w["b_c"])), c


def _gru_layer_norm(a: Any, h: Any, others: Any, w: Any) -> tuple[torch.Tensor, ...]:
    sizes = [2 * h.shape[-1], h.shape[-1]]

    def normed(v: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor) -> list[torch.Tensor]:
        parts = (torch.split(whole, sizes, -1) for whole in (v, gain, bias))
        norm = torch.nn.functional.layer_norm
        return [norm(part, part.shape[-1:], g, b) for part, g, b in zip(*parts, strict=True)]

    a_rz, a_n = normed(a, w["g_ih"], w["b_ih"])
    u_rz, u_n = normed(h @ w["w_hh"].T, w["g_hh"], w["b_hh"])
    r, z = torch.sigmoid(a_rz + u_rz).chunk(2, -1)
    n = torch.tanh(a_n + r * u_n)
    return (n + z * (h - n),)


def _gru_world_model(a: Any, h: Any, others: Any, w: Any) -> tuple[torch.Tensor, ...]:
    v = a + _recurrent(h, w)
    v = torch.nn.functional.layer_norm(v, v.shape[-1:], w["g"], w["b"], 1e-3)
    r, n, z = v.chunk(3, -1)
    return (torch.lerp(h, torch.tanh(torch.sigmoid(r) * n), torch.sigmoid(z)),)


# The gains and biases of normalised cells, in blocks of H; W_ih x has none then.
_NORMS = {
    "lstm_layer_norm": {"g_ih": 4, "b_ih": 4, "g_hh": 4, "b_hh": 4, "g_c": 1, "b_c": 1},
    "gru_layer_norm": {"g_ih": 3, "b_ih": 3, "g_hh": 3, "b_hh": 3},
    "gru_world_model": {"g": 3, "b": 3},
}
_NOISE: Mapping[str, Mapping[str, Any]] = {
    "zoneout": {"zoneout": 0.1},
    "recurrent dropout": {"recurrent_dropout": 0.2},
    "dropout of candidates": {"recurrent_dropout": 0.2, "recurrent_dropout_mode": "candidate"},
    "weight dropout": {"weight_dropout": 0.2},
}
ENTRIES = (
    Entry("LSTM", "lstm", 4, _lstm()),
    Entry("LSTM, peepholes", "lstm", 4, _lstm(peephole=True), "LSTM",
          extra={"w_peephole": "3"}),
    Entry("LSTM, coupled", "lstm", 3, _lstm(coupled=True), "LSTM", arguments={"coupled": True}),
    Entry("LSTM, clip", "lstm", 4, _lstm(clip=3.0), "LSTM", arguments={"clip": 3.0}),
    Entry("LSTM, cell_clip", "lstm", 4, _lstm(cell_clip=0.5), "LSTM",
          arguments={"cell_clip": 0.5}),
    Entry("LSTM, layer normalisation", "lstm_layer_norm", 4, _lstm_layer_norm, "LSTM"),
    Entry("LSTM, projection to H/2", "lstm", 4, _lstm(), "LSTM", extra={"w_hr": "P"}),
    Entry("LSTM, lengths", "lstm", 4, None, "LSTM", lengths=True),
    Entry("LSTM, mask", "lstm", 4, None, "LSTM", masked=True),
    Entry("LSTM, return_cells", "lstm", 4, _lstm(), "LSTM",
          arguments={"return_cells": True}),
    Entry("LSTM, return_flow", "lstm", 4, None, "LSTM", backward={"return_flow": True}),
    Entry("LSTM, clip_dh", "lstm", 4, None, "LSTM", backward={"clip_dh": 1.0}),
    Entry("LSTM, inference", "lstm", 4, None, part="inference"),
    Entry("LSTM, forward mode", "lstm", 4, None, "LSTM, inference", "jvp"),
    Entry("LSTM, backward", "lstm", 4, None, part="backward"),
    Entry("LSTM, double backward", "lstm", 4, _lstm(), "LSTM, backward", "double_backward"),
    Entry("GRU", "gru", 3, _gru()),
    Entry("GRU, inference", "gru", 3, None, part="inference"),
    Entry("GRU, forward mode", "gru", 3, None, "GRU, inference", "jvp"),
    Entry("GRU, backward", "gru", 3, None, part="backward"),
    Entry("GRU, double backward", "gru", 3, _gru(), "GRU, backward", "double_backward"),
    Entry("GRU, layer normalisation", "gru_layer_norm", 3, _gru_layer_norm, "GRU"),
    Entry("GRU of world models", "gru_world_model", 3, _gru_world_model, "GRU"),
    Entry("GRU of world models, 8 heads", "gru_world_model", 3, _gru_world_model,
          "GRU of world models", arguments={"heads": 8}),
    Entry("GRU, 8 heads", "gru", 3, _gru(), "GRU", arguments={"heads": 8}),
    Entry("GRU, clip", "gru", 3, _gru(3.0), "GRU", arguments={"clip": 3.0}),
    Entry("IndRNN", "indrnn", 1, _indrnn),
    Entry("minGRU", "mingru", 2, _mingru, arguments={"candidate": "positive"}, recurrent=False),
    Entry("sLSTM", "slstm", 4, _slstm),
    Entry("sLSTM, 4 heads", "slstm", 4, _slstm, "sLSTM", arguments={"heads": 4}),
    *(
        Entry(f"{layer}, {option}", layer.lower(), gates, None, f"{layer} layer",
              arguments=arguments, layer=layer)
        for layer, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))
        for option, arguments in _NOISE.items() if layer != "RNN" or "mode" not in str(arguments)
    ),
    *(
        Entry(f"{layer} layer", layer.lower(), gates, None, layer=layer)
        for layer, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))
    ),
)  # fmt: skip


class Case:
    """One entry at one shape: ours and the peer's, forward and backward."""

    def __init__(self, entry: Entry, shape: tuple[int, int, int]) -> None:
        self.entry, (T, B, H) = entry, shape
        rng = np.random.default_rng(0)
        sizes: dict[str, tuple[int, ...]] = {
            "w_ih": (entry.gates * H, H),
        }
        norms = _NORMS.get(entry.cell)
        sizes |= {n: (k * H,) for n, k in (norms or {"b_ih": entry.gates}).items()}
        width = H
        if entry.extra and "w_hr" in entry.extra:
            width = H // 2
            sizes["w_hr"] = (width, H)
        if entry.cell == "indrnn":
            sizes["w_hh"] = (H,)
        elif entry.recurrent:
            heads = (entry.arguments or {}).get("heads", 1)
            sizes["w_hh"] = (entry.gates * H, width // heads)
            if entry.cell != "slstm" and norms is None:
                sizes["b_hh"] = (entry.gates * H,)
        if entry.extra and "w_peephole" in entry.extra:
            sizes["w_peephole"] = (3 * H,)
        self.weights = {
            name: (rng.standard_normal(size) / np.sqrt(H)).astype(np.float32)
            for name, size in sizes.items()
        }
        for name in self.weights:
            if name.startswith("g"):  # around 1/2: with 1 what was rounded grows from step to step
                self.weights[name] += np.float32(0.5)
        self.x = rng.standard_normal((T, B, H)).astype(np.float32)
        self.dy = rng.standard_normal((T, B, width)).astype(np.float32)
        self.arguments = dict(entry.arguments or {})
        self.layer: Any = None
        if entry.layer:
            self.layer = getattr(fr, entry.layer)(H, H, seed=0, **self.arguments)
            self.arguments = {}
        if entry.masked:
            self.arguments["mask"] = np.arange(T)[:, None] % T != (np.arange(B) + T // 2) % T
        self.lengths: np.ndarray[Any, Any] | None = None
        if entry.lengths:
            self.lengths = np.linspace(T, T // 4, B).astype(np.int64)
            self.arguments["lengths"] = self.lengths
        self.states = {"lstm": 2, "lstm_layer_norm": 2, "slstm": 4}.get(entry.cell, 1)
        given = {"x": self.x, **self.weights}
        self.direction = {
            name: rng.standard_normal(value.shape).astype(np.float32)
            for name, value in given.items()
        }
        self.tape: Any = None

    def move(self, number: int) -> None:
        """Take copies of all arrays, which lie differently to each other for every number."""
        places = (number * step * LINE % PAGE for step in itertools.count(1, 2))
        self.x, self.dy = placed(self.x, next(places)), placed(self.dy, next(places))
        self.weights = {name: placed(w, next(places)) for name, w in self.weights.items()}
        self.tape = None

    def ours(self) -> Any:
        part = self.entry.part
        if part == "training":
            return self._training()
        if part == "inference":
            return getattr(fr, self.entry.cell)(self.x, **self.weights)[0]
        if part == "jvp":
            return getattr(fr, f"{self.entry.cell}_jvp")(self.direction, self.x, **self.weights)[0][
                0
            ]
        if self.tape is None:
            *_, self.tape = getattr(fr, f"{self.entry.cell}_forward")(self.x, **self.weights)
        function = getattr(fr, f"{self.entry.cell}_{part}")
        if part == "backward":
            return function(self.tape, self.dy).dx
        return function(self.tape, self.direction, self.dy)["dy"]

    def _training(self) -> Any:
        if self.layer is not None:
            y, _, tape = self.layer.forward(self.x)
            self.layer.backward(tape, self.dy)
            return y
        y, *_, tape = getattr(fr, f"{self.entry.cell}_forward")(
            self.x, **self.weights, **self.arguments
        )
        getattr(fr, f"{self.entry.cell}_backward")(tape, self.dy, **(self.entry.backward or {}))
        return y

    def peer(self) -> Run | None:
        """What PyTorch's users run; None where there is nothing to compare with."""
        entry = self.entry
        if entry.step is None and self.lengths is None:
            return None
        w = {name: torch.tensor(value, requires_grad=True) for name, value in self.weights.items()}
        x = torch.tensor(self.x, requires_grad=True)
        dy = torch.tensor(self.dy)
        T, B, H = self.x.shape
        if self.lengths is not None:
            return self._packed(x, dy)

        def loop() -> torch.Tensor:
            x.grad = None
            for value in w.values():
                value.grad = None
            a = x @ w["w_ih"].T
            a = a if entry.cell in _NORMS else a + w["b_ih"]
            h = torch.zeros(B, self.dy.shape[2])
            others = tuple(torch.zeros(B, H) for _ in range(self.states - 1))
            rows = []
            assert entry.step is not None
            for t in range(T):
                h, *rest = entry.step(a[t], h, others, w)
                others = tuple(rest)
                rows.append(h)
            y = torch.stack(rows)
            if entry.part == "double_backward":
                return twice(y)
            torch.autograd.backward(y, dy)
            return y.detach()

        inputs = {"x": x, **w}
        direction = [torch.tensor(self.direction[name]) for name in inputs]
        dy.requires_grad_(entry.part == "double_backward")

        def twice(y: torch.Tensor) -> torch.Tensor:
            grads = torch.autograd.grad(y, list(inputs.values()), dy, create_graph=True)
            return torch.autograd.grad(grads, [*inputs.values(), dy], direction)[-1]

        return loop

    def _packed(self, x: torch.Tensor, dy: torch.Tensor) -> Run:
        H = self.x.shape[2]
        layer = torch.nn.LSTM(H, H)
        with torch.no_grad():
            for name, value in self.weights.items():
                kind = "weight" if name.startswith("w") else "bias"
                getattr(layer, f"{kind}_{name[2:]}_l0").copy_(torch.tensor(value))
        lengths = torch.tensor(self.lengths)

        def packed() -> torch.Tensor:
            x.grad = None
            layer.zero_grad()
            rows = torch.nn.utils.rnn.pack_padded_sequence(x, lengths)
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(layer(rows)[0])
            torch.autograd.backward(y, dy)
            return y.detach()

        return packed


def placed(array: np.ndarray[Any, Any], offset: int) -> np.ndarray[Any, Any]:
    """A copy that begins so many bytes into a page."""
    memory = np.empty(array.nbytes + 2 * PAGE, np.uint8)
    begin = -memory.ctypes.data % PAGE + offset
    copy: np.ndarray[Any, Any] = (
        memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    )
    copy[...] = array
    return copy


def measure(rounds: int, budget: float, only: str) -> list[dict[str, Any]]:
    """One record for each entry and shape."""
    records = []
    by_name = {entry.name: entry for entry in ENTRIES}
    for shape in SHAPES:
        for entry in ENTRIES:
            if only not in entry.name:
                continue
            case = Case(entry, shape)
            cases = [case]
            runs: dict[str, Run] = {"ours": case.ours}
            if entry.plain:
                cases.append(Case(by_name[entry.plain], shape))
                runs["plain"] = cases[-1].ours
            peer = case.peer()
            if peer is not None:
                runs["peer"] = peer
                y, theirs = np.asarray(case.ours()), peer().numpy()
                error = float(np.linalg.norm(y - theirs) / np.linalg.norm(theirs))
                if not error <= LIMIT:
                    raise SystemExit(f"{entry.name} {shape}: y differs by {error:.1e}")

            def move(number: int, cases: Sequence[Case] = cases) -> None:
                for moved in cases:
                    moved.move(number)

            times = least(runs, rounds, budget, move)
            record = {"entry": entry.name, "shape": shape, "ms": times["ours"] * 1e3}
            if "plain" in times:
                record["over_plain"] = times["ours"] / times["plain"]
            if "peer" in times:
                record["peer"] = "PackedSequence" if entry.lengths else "loop"
                record["peer_over_ours"] = times["peer"] / times["ours"]
            records.append(record)
            print(_line(record), flush=True)
    return records


def _line(record: Mapping[str, Any]) -> str:
    shape = ", ".join(map(str, record["shape"]))
    over = f"{record['over_plain']:.2f}" if "over_plain" in record else ""
    peer = f"{record['peer_over_ours']:.1f}" if "peer" in record else ""
    note = " (PackedSequence)" if record.get("peer") == "PackedSequence" else ""
    return f"| {record['entry']} | {shape} | {record['ms']:.3f} | {over} | {peer}{note} |"


HEAD = "| | T, B, H | ms | over the plain cell | Python loop over ours |\n|---|---|---:|---:|---:|"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--min-time", type=float, default=0.2, help="seconds a round and run")
    parser.add_argument("--only", default="", help="entries whose name has this in it")
    parser.add_argument("--out", type=Path, help="a JSON file; beside it a .md with the table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    fr.set_num_threads(1)
    print(HEAD)
    records = measure(options.rounds, options.min_time, options.only)
    if options.out:
        about = machine.describe() | {
            "isa": fr.info()["isa"],
            "versions": {"fusedrnn": fr.__version__, "pytorch": torch.__version__},
            "load": machine.load_average(),
        }
        options.out.write_text(json.dumps({"machine": about, "records": records}, indent=1) + "\n")
        table = "\n".join(_line(record) for record in records)
        options.out.with_suffix(".md").write_text(f"{HEAD}\n{table}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
