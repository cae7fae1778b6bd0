"""What fusedrnn.nn takes beside PyTorch: `python bench/nn.py`.

Forward and every gradient, on one thread, in float32: linear layers of some rows, softmax
cross-entropy of [T * B, V], CTC, and attention over a memory, all steps of a decoder at once and
one step. PyTorch has it as people write it there: `linear`, `cross_entropy`, `ctc_loss` of
`log_softmax`, `MultiheadAttention`, and products, softmax and tanh for the other scores. Our
cross-entropy writes its gradient to an array that is there, as in training; PyTorch has no such
argument. Results of both are compared first. Times are CPU times of the process, the least of
rounds that take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

import fusedrnn as fr
from bench import machine
from bench.timing import least
from fusedrnn import nn

LIMIT = 2e-3  # relative difference of gradients: PyTorch sums CTC's logarithms in float32
Run = Callable[[], list[Any]]  # gradients
Pair = tuple[str, str, Run, Run]  # what, of which shape, ours, theirs


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def leaf(array: Any) -> torch.Tensor:
    return torch.tensor(array, requires_grad=True)


def gradients(leaves: list[torch.Tensor]) -> list[Any]:
    found = [tensor.grad for tensor in leaves]
    for tensor in leaves:
        tensor.grad = None
    return found


def linear(rows: int, inputs: int, outputs: int) -> Pair:
    x, dy, module = random(rows, inputs), random(rows, outputs, seed=1), nn.Linear(inputs, outputs)
    leaves = [leaf(x), *map(leaf, module.parameters().values())]
    upstream = torch.tensor(dy)

    def theirs() -> list[Any]:
        torch.autograd.backward(F.linear(*leaves), upstream)
        return gradients(leaves)

    def ours() -> list[Any]:
        _, tape = module.forward(x)
        return list(module.backward(tape, dy).values())

    return "linear layer", f"{rows} rows, {inputs} to {outputs}", ours, theirs


def cross_entropy(rows: int, classes: int) -> Pair:
    logits, targets = random(rows, classes), np.arange(rows) * 7 % classes
    out, x, t = np.empty_like(logits), leaf(logits), torch.tensor(targets)

    def theirs() -> list[Any]:
        torch.autograd.backward(F.cross_entropy(x, t))
        return gradients([x])

    def ours() -> list[Any]:
        return [nn.cross_entropy_grad(logits, targets, out=out)[1]]

    return "cross-entropy", f"T·B {rows}, V {classes}", ours, theirs


def ctc(steps: int, batch: int, classes: int, labels: int) -> Pair:
    logits = random(steps, batch, classes)
    targets = np.random.default_rng(0).integers(1, classes, (batch, labels))
    x, t = leaf(logits), torch.tensor(targets)
    ends = torch.full((batch,), steps), torch.full((batch,), labels)

    def theirs() -> list[Any]:
        torch.autograd.backward(F.ctc_loss(F.log_softmax(x, -1), t, *ends))
        return gradients([x])

    def ours() -> list[Any]:
        return [nn.ctc_grad(logits, targets)[1]]

    return "CTC", f"T {steps}, B {batch}, V {classes}, L {labels}", ours, theirs


def attention(kind: str, steps: int, memory_steps: int, batch: int, size: int) -> Pair:
    query, memory = random(steps, batch, size), random(memory_steps, batch, size, seed=1)
    dy = random(steps, batch, size, seed=2)
    module: Any
    if kind == "multi-head":
        module = nn.MultiHeadAttention(size, size, 8, seed=0)
    else:
        module = nn.Attention(size, size, score="additive" if kind == "additive" else "scaled_dot")
    leaves = [leaf(query), leaf(memory), *map(leaf, module.parameters().values())]
    upstream = torch.tensor(dy)
    forward = _torch_attention(kind, size, leaves)

    def theirs() -> list[Any]:
        torch.autograd.backward(forward(), upstream)
        return gradients(leaves)

    def ours() -> list[Any]:
        _, tape = module.forward(query, memory)
        return list(module.backward(tape, dy).values())

    return f"{kind} attention", f"T {steps}, S {memory_steps}, B {batch}, {size}", ours, theirs


def _torch_attention(kind: str, size: int, leaves: list[torch.Tensor]) -> Callable[[], Any]:
    query, memory, *weights = leaves

    def dot() -> torch.Tensor:
        keys = memory.transpose(0, 1)
        scores = torch.softmax(query.transpose(0, 1) @ keys.mT / size**0.5, -1)
        return (scores @ keys).transpose(0, 1)

    def additive() -> torch.Tensor:
        v, query_w, memory_w, memory_b = weights
        projected = (query @ query_w.T)[:, None] + F.linear(memory, memory_w, memory_b)
        scores = torch.softmax(torch.tanh(projected) @ v, 1)
        return torch.einsum("tsb,sbd->tbd", scores, memory)

    def multi_head() -> torch.Tensor:
        query_w, query_b, key_w, key_b, value_w, value_b, out_w, out_b = weights
        y, _ = F.multi_head_attention_forward(
            query,
            memory,
            memory,
            size,
            8,
            in_proj_weight=None,
            in_proj_bias=torch.cat([query_b, key_b, value_b]),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=out_w,
            out_proj_bias=out_b,
            need_weights=False,
            use_separate_proj_weight=True,
            q_proj_weight=query_w,
            k_proj_weight=key_w,
            v_proj_weight=value_w,
        )
        return y

    return {"dot": dot, "additive": additive, "multi-head": multi_head}[kind]


def cases() -> list[Pair]:
    pairs = [linear(rows, 256, 100) for rows in (1, 32, 2048)]
    pairs += [cross_entropy(2048, classes) for classes in (100, 1000, 10000)]
    pairs += [ctc(150, 16, 30, 30), ctc(500, 16, 100, 60)]
    for kind in ("dot", "additive", "multi-head"):
        pairs += [attention(kind, steps, 40, 32, 256) for steps in (30, 1)]
    return pairs


def check(what: str, ours: list[Any], theirs: list[Any]) -> None:
    wide = [tensor.numpy().astype(np.float64) for tensor in theirs]
    # Of all together: that of a key's bias is a sum that cancels.
    size = np.sqrt(sum(float(np.sum(array**2)) for array in wide))
    for a, b in zip(ours, wide, strict=True):
        error = float(np.linalg.norm(a - b)) / size
        if not error <= LIMIT:
            raise SystemExit(f"{what}: gradients differ by {error:.1e}")


HEAD = "| | | ms | PyTorch over ours |\n|---|---|---:|---:|"


def line(record: dict[str, Any]) -> str:
    return (
        f"| {record['what']} | {record['shape']} | {record['ms']:.2f} | "
        f"{record['torch_over_ours']:.2f} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--min-time", type=float, default=0.2, help="seconds a round and run")
    parser.add_argument("--cases", type=int, help="how many")
    parser.add_argument("--out", type=Path, help="a JSON file; beside it a .md with the table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    fr.set_num_threads(1)
    print(HEAD, flush=True)
    records = []
    for what, shape, ours, theirs in cases()[: options.cases]:
        check(what, ours(), theirs())
        times = least({"ours": ours, "theirs": theirs}, options.rounds, options.min_time)
        ratio = times["theirs"] / times["ours"]
        records.append(
            {"what": what, "shape": shape, "ms": times["ours"] * 1e3, "torch_over_ours": ratio}
        )
        print(line(records[-1]), flush=True)
    if options.out:
        about = machine.describe() | {
            "isa": fr.info()["isa"],
            "versions": {"fusedrnn": fr.__version__, "pytorch": torch.__version__},
            "load": machine.load_average(),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        whole = {"machine": about, "cases": records}
        options.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        head = (
            f"{about['cpu']}, family {about['family'].get('cpu family')}, {about['cores']} cores, "
            f"{about['isa']}, PyTorch {torch.__version__}; forward and gradients, one thread, the "
            f"least CPU time of calls; load average {about['load']:.1f}."
        )
        table = "\n".join([head, "", HEAD, *map(line, records)])
        options.out.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
