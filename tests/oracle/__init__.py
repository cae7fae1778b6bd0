"""The gradient oracle: pure Python, no package, no NumPy. What is right is decided here.

Each cell is written once, as its equations (`cells.py`); gradients follow by differentiation
(`autodiff.py`). Arrays are nested lists of floats, or anything with `tolist()`; results are nested
lists in a dict under the names of `docs/math.md`. It is slow on purpose: a few thousand weights
and steps; `reference` serves the larger shapes.

    oracle.forward("lstm", x, w_ih=w_ih, w_hh=w_hh, lengths=[3, 1])["y"]
    oracle.gradients("gru", x, w_ih=w_ih, w_hh=w_hh, dy=dy, reset_after=False)["dw_hh"]
    oracle.stack("rnn", x, state_dict)["h_n"]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .autodiff import Scalar, Var, backpropagate, value_of
from .cells import CELLS, State
from .dual import Dual, Number, tangent_of
from .noise import Noise, philox
from .sequence import Nested, layer_suffixes, layer_weights, run, run_stack, state_sizes
from .vector import Vector, zeros

__all__ = [
    "CELLS",
    "Noise",
    "directional",
    "flow",
    "forward",
    "gradients",
    "philox",
    "stack",
    "stack_directional",
    "stack_gradients",
    "zeros",
]


def forward(
    cell: str,
    x: Nested,
    *,
    lengths: Nested = None,
    resets: Nested = None,
    mask: Nested = None,
    padding: str = "zero",
    reverse: bool = False,
    return_cells: bool = False,
    **arguments: Any,
) -> dict[str, Nested]:
    """Outputs y [T][B][H], h_n [B][H] (and c_n) of one direction of one layer.

    `arguments` are the cell's weights (w_ih, w_hh, b_ih, b_hh), its initial states (h0, c0; None
    or absent means zeros), its reset states (reset_h, reset_c [H], in the same way) and its options
    (`nonlinearity`, `reset_after`, `coupled`, `heads`, `noise`). With `return_cells` c [T][B][H] is
    returned as well.

    A step t of a sequence b exists where t < lengths[b] and mask[t][b]; what does not exist leaves
    the state as it is, its y is zero, or with `padding` "last" that state.
    """
    values, evaluate = _sequence(
        cell,
        x,
        arguments,
        lengths=lengths,
        resets=resets,
        mask=mask,
        padding=padding,
        reverse=reverse,
    )
    return _returned(cell, evaluate(values), return_cells)


def gradients(
    cell: str,
    x: Nested,
    *,
    lengths: Nested = None,
    resets: Nested = None,
    mask: Nested = None,
    padding: str = "zero",
    reverse: bool = False,
    dy: Nested = None,
    **arguments: Any,
) -> dict[str, Nested]:
    """Gradients of sum(dy*y) + sum(dh_n*h_n) + sum(dc_n*c_n) + sum(dc*c) ...; None is zero.

    Takes what `forward` takes. Returns dx, dh0 (and dc0, ...), and one gradient for each weight and
    each reset state given.
    """
    upstream = _upstream(cell, dy, arguments)
    values, evaluate = _sequence(
        cell,
        x,
        arguments,
        lengths=lengths,
        resets=resets,
        mask=mask,
        padding=padding,
        reverse=reverse,
    )
    return {f"d{name}": grad for name, grad in _grad(evaluate, values, upstream).items()}


def flow(
    cell: str,
    x: Nested,
    *,
    lengths: Nested = None,
    resets: Nested = None,
    mask: Nested = None,
    padding: str = "zero",
    reverse: bool = False,
    dy: Nested = None,
    clip_dh: float = math.inf,
    **arguments: Any,
) -> tuple[dict[str, Nested], dict[str, list[float]]]:
    """Gradients as `gradients`, and by state the norm of the gradient of what leaves each step.

    `clip_dh` limits the magnitude of each element of that of h before it goes on.
    """
    upstream = _upstream(cell, dy, arguments)
    left: list[list[State]] = [[] for _ in x]

    def leave(t: int, state: State) -> State:
        h, *others = (
            Vector(Var(value_of(a), ((a, 1.0),) if isinstance(a, Var) else (), limit) for a in part)
            for part, limit in zip(state, (clip_dh, *[math.inf] * (len(state) - 1)), strict=True)
        )
        left[t].append((h, *others))
        return left[t][-1]

    values, evaluate = _sequence(
        cell,
        x,
        arguments,
        lengths=lengths,
        resets=resets,
        mask=mask,
        padding=padding,
        reverse=reverse,
        leave=leave,
    )
    variables, grad = _differentiated(evaluate, values, upstream)
    norms = {
        letter: [
            math.sqrt(sum(_gradient(a, grad) ** 2 for state in states for a in state[s]))
            for states in left
        ]
        for s, letter in enumerate(CELLS[cell].states)
    }
    return {f"d{name}": _gradients_of(value, grad) for name, value in variables.items()}, norms


def directional(
    cell: str,
    x: Nested,
    *,
    along: Mapping[str, Nested],
    lengths: Nested = None,
    resets: Nested = None,
    mask: Nested = None,
    padding: str = "zero",
    reverse: bool = False,
    dy: Nested = None,
    **arguments: Any,
) -> tuple[dict[str, Nested], dict[str, Nested]]:
    """Derivatives along a direction: of the outputs, and of what `gradients` returns.

    `along` has the direction: by the names of differentiable arguments (x, w_hh, h0, ...) arrays of
    their shapes, zero where absent.
    """
    upstream = _upstream(cell, dy, arguments)
    values, evaluate = _sequence(
        cell,
        x,
        arguments,
        lengths=lengths,
        resets=resets,
        mask=mask,
        padding=padding,
        reverse=reverse,
    )
    outputs, grads = _directional(evaluate, values, upstream, along)
    return outputs, {f"d{name}": grad for name, grad in grads.items()}


def stack(
    cell: str,
    x: Nested,
    parameters: Mapping[str, Nested],
    *,
    lengths: Nested = None,
    resets: Nested = None,
    mask: Nested = None,
    padding: str = "zero",
    return_cells: bool = False,
    **arguments: Any,
) -> dict[str, Nested]:
    """Outputs y [T][B][D*H], h_n [L*D][B][H] (and c_n) of stacked, perhaps bidirectional layers.

    `parameters` carries PyTorch's names, from which L and D follow; `arguments` are h0, c0
    ([L*D][B][H]), reset_h, reset_c ([L*D][H]) and the cell's options.
    """
    values, evaluate = _stack(
        cell,
        x,
        parameters,
        arguments,
        lengths=lengths,
        resets=resets,
        mask=mask,
        padding=padding,
    )
    return _returned(cell, evaluate(values), return_cells)


def stack_gradients(
    cell: str,
    x: Nested,
    parameters: Mapping[str, Nested],
    *,
    lengths: Nested = None,
    resets: Nested = None,
    mask: Nested = None,
    padding: str = "zero",
    dy: Nested = None,
    **arguments: Any,
) -> dict[str, Nested]:
    """Gradients as in `gradients`, under the parameters' own names, "x", "h0" (and "c0", ...)."""
    upstream = _upstream(cell, dy, arguments)
    values, evaluate = _stack(
        cell,
        x,
        parameters,
        arguments,
        lengths=lengths,
        resets=resets,
        mask=mask,
        padding=padding,
    )
    return _grad(evaluate, values, upstream)


def stack_directional(
    cell: str,
    x: Nested,
    parameters: Mapping[str, Nested],
    *,
    along: Mapping[str, Nested],
    lengths: Nested = None,
    resets: Nested = None,
    mask: Nested = None,
    padding: str = "zero",
    dy: Nested = None,
    **arguments: Any,
) -> tuple[dict[str, Nested], dict[str, Nested]]:
    """As `directional`, of the outputs of `stack` and of what `stack_gradients` returns."""
    upstream = _upstream(cell, dy, arguments)
    values, evaluate = _stack(
        cell,
        x,
        parameters,
        arguments,
        lengths=lengths,
        resets=resets,
        mask=mask,
        padding=padding,
    )
    return _directional(evaluate, values, upstream, along)


Values = dict[str, Nested]
Evaluate = Callable[[Values], dict[str, Nested]]


def _upstream(cell: str, dy: Nested, arguments: dict[str, Any]) -> Values:
    """The gradients of the outputs; those of the states are taken out of `arguments`."""
    letters = CELLS[cell].states
    names = (*(f"{s}_n" for s in letters), *letters[1:])
    return {"y": dy, **{name: arguments.pop(f"d{name}", None) for name in names}}


def _sequence(
    cell: str,
    x: Nested,
    arguments: dict[str, Any],
    *,
    lengths: Nested,
    resets: Nested,
    mask: Nested,
    padding: str,
    reverse: bool,
    leave: Callable[[int, State], State] | None = None,
) -> tuple[Values, Evaluate]:
    """The differentiable values of a call, and the function from them to its outputs."""
    batch = _batch(x, lengths, arguments.get("h0"))
    tensors, options = _split(arguments)
    reset = _reset(tensors)
    initial = _initial(cell, tensors, options, lambda size: [[0.0] * size for _ in range(batch)])

    def evaluate(values: Values) -> dict[str, Nested]:
        return run(
            cell,
            values["x"],
            {name: values[name] for name in initial},
            {name: values[name] for name in tensors},
            lengths=_lists(lengths),
            resets=_lists(resets),
            mask=_lists(mask),
            padding=padding,
            reverse=reverse,
            options=options,
            reset={name: values[name] for name in reset},
            leave=leave,
        )

    return {"x": _lists(x), **initial, **tensors, **reset}, evaluate


def _stack(
    cell: str,
    x: Nested,
    parameters: Mapping[str, Nested],
    arguments: dict[str, Any],
    *,
    lengths: Nested,
    resets: Nested,
    mask: Nested,
    padding: str,
) -> tuple[Values, Evaluate]:
    h0 = arguments.get("h0")
    batch = _batch(x, lengths, None if h0 is None else h0[0])
    rows = sum(map(len, layer_suffixes(parameters)))
    tensors, options = _split(arguments)
    reset = _reset(tensors)
    weights = {name: _lists(value) for name, value in parameters.items()}
    initial = _initial(
        cell,
        tensors | layer_weights(weights, "_l0"),
        options,
        lambda size: [[[0.0] * size for _ in range(batch)] for _ in range(rows)],
    )
    if unknown := tensors.keys() - initial.keys():
        raise TypeError(f"unknown arguments {sorted(unknown)}")

    def evaluate(values: Values) -> dict[str, Nested]:
        return run_stack(
            cell,
            values["x"],
            {name: values[name] for name in initial},
            {name: values[name] for name in weights},
            lengths=_lists(lengths),
            resets=_lists(resets),
            mask=_lists(mask),
            padding=padding,
            options=options,
            reset={name: values[name] for name in reset},
        )

    return {"x": _lists(x), **initial, **weights, **reset}, evaluate


def _grad(evaluate: Evaluate, values: Values, upstream: Mapping[str, Nested]) -> Values:
    variables, grad = _differentiated(evaluate, values, upstream)
    return {name: _gradients_of(value, grad) for name, value in variables.items()}


def _directional(
    evaluate: Evaluate, values: Values, upstream: Mapping[str, Nested], along: Mapping[str, Nested]
) -> tuple[Values, Values]:
    if unknown := along.keys() - values.keys():
        raise TypeError(f"unknown names {sorted(unknown)}")
    duals = {
        name: _joined(value, _lists(along[name])) if name in along else value
        for name, value in values.items()
    }
    outputs = evaluate({name: _map(Var, value) for name, value in duals.items()})
    grads = _grad(evaluate, duals, upstream)
    return (
        {name: _map(lambda a: tangent_of(value_of(a)), out) for name, out in outputs.items()},
        {name: _map(tangent_of, grad) for name, grad in grads.items()},
    )


def _joined(value: Nested, tangent: Nested) -> Nested:
    if isinstance(value, list):
        return [_joined(v, t) for v, t in zip(value, tangent, strict=True)]
    return Dual(value, tangent)


def _gradients_of(variables: Nested, grad: Mapping[Var, Number]) -> Nested:
    return _map(lambda var: _gradient(var, grad), variables)


def _gradient(a: Scalar, grad: Mapping[Var, Number]) -> Any:
    return grad.get(a, 0.0) if isinstance(a, Var) else 0.0


def _differentiated(
    evaluate: Evaluate, values: Values, upstream: Mapping[str, Nested]
) -> tuple[Values, dict[Var, Number]]:
    variables = {name: _map(Var, value) for name, value in values.items()}
    outputs = evaluate(variables)
    seeds: list[tuple[Scalar, float]] = []
    for name, seed in upstream.items():
        if seed is not None:
            seeds += zip(_flat(outputs[name]), _flat(_lists(seed)), strict=True)
    return variables, backpropagate(seeds)


def _split(arguments: Mapping[str, Any]) -> tuple[Values, dict[str, Any]]:
    """Tensors apart from options; what is None is absent."""
    given = {name: _lists(value) for name, value in arguments.items() if value is not None}
    tensors = {name: value for name, value in given.items() if isinstance(value, list)}
    return tensors, {name: value for name, value in given.items() if name not in tensors}


def _initial(
    cell: str, tensors: Values, options: Mapping[str, Any], zeros: Callable[[int], Nested]
) -> Values:
    """Take the initial states out of `tensors`, with zeros for those that are missing."""
    names = [f"{letter}0" for letter in CELLS[cell].states]
    sizes = state_sizes(cell, tensors, options)
    return {
        name: tensors.pop(name) if name in tensors else zeros(size)
        for name, size in zip(names, sizes, strict=True)
    }


def _reset(tensors: Values) -> Values:
    """Take the reset states out of `tensors`."""
    names = [name for name in tensors if name.startswith("reset_")]
    return {name: tensors.pop(name) for name in names}


def _returned(cell: str, outputs: dict[str, Nested], return_cells: object) -> dict[str, Nested]:
    cells = CELLS[cell].states[1:]
    return {name: value for name, value in outputs.items() if name not in cells or return_cells}


def _batch(x: Nested, lengths: Nested, h0: Nested) -> int:
    """B, which nested lists do not tell when T is 0."""
    if hasattr(x, "shape"):
        return int(x.shape[1])
    return len(next((rows for rows in (*x[:1], h0, lengths) if rows is not None), ()))


def _lists(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _map(f: Callable[[Any], Any], value: Nested) -> Nested:
    return [_map(f, item) for item in value] if isinstance(value, list) else f(value)


def _flat(value: Nested) -> list[Any]:
    return [leaf for item in value for leaf in _flat(item)] if isinstance(value, list) else [value]
