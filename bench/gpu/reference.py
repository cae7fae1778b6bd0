"""The result that every peer is verified against: float64, step by step, on the same device.

A GPU's own float64 makes it fast enough for the largest case; the tests hold it against the NumPy
reference of the CPU benchmarks.
"""

from __future__ import annotations

from typing import Any

from ..peers.base import require
from .scenarios import Problem


class MismatchError(Exception):
    """A result that the reference contradicts."""


def reference(problem: Problem) -> dict[str, Any]:
    """Outputs, and in training all gradients, as float64 tensors."""
    torch = require("torch")
    training = problem.case.scenario == "training"
    exact = {name: tensor.double() for name, tensor in problem.tensors.items()}
    states = problem.case.states
    names = ["x", "w_ih", "w_hh", "b_ih", "b_hh", *(f"{s}0" for s in states)]
    leaves = {name: exact[name].requires_grad_(training) for name in names}
    with torch.set_grad_enabled(training):
        outputs = _forward(torch, problem, leaves)
    if not training:
        return outputs
    upstream = [exact["dy"], *(exact[f"d{s}_n"] for s in states)]
    if problem.lengths is not None:
        upstream[0] = upstream[0] * _valid(torch, problem)
    grads = torch.autograd.grad([*outputs.values()], [*leaves.values()], upstream)
    found = {name: tensor.detach() for name, tensor in outputs.items()}
    return found | {f"d{name}": grad for name, grad in zip(leaves, grads, strict=True)}


def _valid(torch: Any, problem: Problem) -> Any:
    """[T,B,1]: 1 in the valid steps, 0 in the padding."""
    steps = torch.arange(problem.case.shape.steps, device=problem.lengths.device)
    return (steps[:, None] < problem.lengths[None]).double()[:, :, None]


def _forward(torch: Any, problem: Problem, p: dict[str, Any]) -> dict[str, Any]:
    cell = problem.case.shape.cell
    projected = torch.matmul(p["x"], p["w_ih"].T) + p["b_ih"]
    w_hh_t = p["w_hh"].T.contiguous()
    masks = None if problem.lengths is None else _valid(torch, problem)
    state, ys = [p[f"{s}0"] for s in problem.case.states], []
    for t, a in enumerate(projected.unbind(0)):
        u = torch.matmul(state[0], w_hh_t) + p["b_hh"]
        following = _step(torch, cell, a, u, state)
        y = following[0]
        if masks is not None:
            valid = masks[t] > 0
            y = y * masks[t]
            following = [
                torch.where(valid, new, old) for new, old in zip(following, state, strict=True)
            ]
        state = following
        ys.append(y)
    names = [f"{s}_n" for s in problem.case.states]
    return {"y": torch.stack(ys), **dict(zip(names, state, strict=True))}


def _step(torch: Any, cell: str, a: Any, u: Any, state: list[Any]) -> list[Any]:
    if cell == "rnn":
        return [torch.tanh(a + u)]
    if cell == "gru":
        a_r, a_z, a_n = a.chunk(3, 1)
        u_r, u_z, u_n = u.chunk(3, 1)
        r, z = torch.sigmoid(a_r + u_r), torch.sigmoid(a_z + u_z)
        n = torch.tanh(a_n + r * u_n)
        return [(1 - z) * n + z * state[0]]
    i, f, g, o = (a + u).chunk(4, 1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(c), c]


# The largest relative error by norm, of outputs and of gradients. float32 leaves room for another
# order of sums over long sequences; the others what their rounding explains.
TOLERANCES = {
    "float32": (1e-5, 2e-5),
    "tfloat32": (5e-3, 2e-2),
    "bfloat16": (2e-2, 8e-2),
    "float16": (3e-3, 2e-2),
}


def verify(actual: dict[str, Any], expected: dict[str, Any], precision: str) -> float:
    """The largest relative error by norm; raises MismatchError naming the array that is wrong."""
    if actual.keys() != expected.keys():
        raise MismatchError(
            f"expected {', '.join(sorted(expected))}, got {', '.join(sorted(actual))}"
        )
    of_outputs, of_gradients = TOLERANCES[precision]
    worst = 0.0
    for name, exact in expected.items():
        got = actual[name].detach()
        if tuple(got.shape) != tuple(exact.shape):
            raise MismatchError(f"{name}: expected {tuple(exact.shape)}, got {tuple(got.shape)}")
        error = float((got.double() - exact).norm() / exact.norm())
        allowed = of_gradients if name.startswith("d") else of_outputs
        if not error <= allowed:  # a NaN is no pass
            raise MismatchError(f"{name}: relative error {error:.2g} exceeds {allowed:.2g}")
        worst = max(worst, error)
    return worst
