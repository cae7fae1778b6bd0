"""The functions of single cells, for arrays that JAX traces."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import fusedrnn
from fusedrnn import _core, options
from fusedrnn.functional import Delegated
from fusedrnn.jax.call import array, call, check_shape, integers, sequences
from fusedrnn.jax.network import Plan
from fusedrnn.runs import Run

F = TypeVar("F", bound=Callable[..., Any])


def _in_jax(function: F) -> F:
    """The function, with options and checks of its own, run by the primitives."""

    @functools.wraps(function)
    def traced(x: Any, *arguments: Any, memory: str = "default", **others: Any) -> Any:
        run = functools.partial(_run, memory)
        return function(Delegated(sequences(x), run), *arguments, **others)

    traced.__doc__ = (
        f"`fusedrnn.{function.__name__}` for JAX: compiled, differentiated, batched.\n\n"
        "Beside its arguments, without `out` and `return_gates`, it takes `memory`, as its forward "
        "function does."
    )
    return traced  # type: ignore[return-value]


def _run(
    memory: str,
    cell: str,
    x: Any,
    parameters: tuple[Any, ...],
    states: tuple[Any, ...],
    masks: tuple[Any, Any, Any, object, tuple[Any, ...]],
    reverse: object,
    compute_dtype: object,
    out: object,
    return_cells: object,
    return_gates: object,
    constants: tuple[float, ...],
    heads: object,
) -> tuple[Any, tuple[Any, ...], tuple[Any, ...], None]:
    """What `fusedrnn.functional.run` does, over JAX."""
    if out is not None:
        raise ValueError("out: expected None, for JAX's arrays are never written to, got some")
    if options.flag("return_gates", return_gates):
        raise ValueError("return_gates: expected False in JAX, got True")
    lengths, mask, resets, padding, reset_states = masks
    names = list(_shapes(cell, constants))
    given = [array(name, value) for name, value in zip(names, parameters, strict=True)]
    blocks = options.positive("heads", heads)
    sizes = _sizes(cell, dict(zip(names, given, strict=True)), constants, blocks)
    input_size, hidden_size, projection_size = sizes
    plan = Plan(
        (cell, input_size, hidden_size, projection_size, blocks, 1, constants, (), 1),
        options.flag("reverse", reverse),
        options.compute_dtype(compute_dtype),
        options.is_lean(memory),
        options.choice("padding", padding, options.PADDINGS) == "last",
        options.flag("return_cells", return_cells),
    )
    for (_, name, shape, optional), value in zip(plan.parameters, given, strict=True):
        if value is None and not optional:
            raise TypeError(f"{name}: expected an array, got None")
        check_shape(name, value, shape)
    sequences(x, input_size)
    letters = options.STATES[: len(states)]
    unbatched = x.ndim == 2
    batch = () if unbatched else (x.shape[1],)
    starts, ends = [], []
    for letter, size, state, reset in zip(
        letters, plan.state_sizes, states, reset_states, strict=True
    ):
        start, end = array(f"{letter}0", state), array(f"reset_{letter}", reset)
        check_shape(f"{letter}0", start, (*batch, size))
        check_shape(f"reset_{letter}", end, (size,))
        starts.append((f"{letter}0", start if start is None else start.reshape(1, -1, size)))
        ends.append((f"reset_{letter}", end if end is None else end[None]))
    lengths, mask, resets = (
        integers("lengths", lengths),
        array("mask", mask),
        array("resets", resets),
    )
    if unbatched:
        x = x[:, None]
        lengths = lengths if lengths is None else lengths.reshape(1)
        mask, resets = (m if m is None else m[:, None] for m in (mask, resets))
    weights = list(zip(names, given, strict=True))
    y, *others = call(plan, x, weights, starts, ends, (lengths, mask, resets), None)
    count = len(states)
    ended = tuple(state[0, 0] if unbatched else state[0] for state in others[:count])
    shown = [y, *others[count:]]
    if unbatched:
        shown = [sequence[:, 0] for sequence in shown]
    return shown[0], ended, tuple(shown[1:]), None


@functools.lru_cache(maxsize=256)
def _shapes(cell: str, constants: tuple[float, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters that a run of the cell may have, where all sizes are 1."""
    run = Run(cell, False, 0, 1, 0, 0, 1, 1, 1 if "projection" in cell else 0, 1, constants, ())
    return {name: shape for _, name, shape, _ in _core.Network(run.record(), "float32").parameters}


def _sizes(
    cell: str, parameters: dict[str, Any], constants: tuple[float, ...], heads: int
) -> tuple[int, int, int]:
    """I, H and P of a run with these parameters; which of them do not fit is checked later."""
    w_ih = parameters["w_ih"]
    if w_ih is None:
        raise TypeError("w_ih: expected an array, got None")
    gates = _shapes(cell, constants)["w_ih"][0]
    if w_ih.ndim != 2 or w_ih.shape[0] % gates or 0 in w_ih.shape:
        wanted = "[H, I]" if gates == 1 else f"[{gates}*H, I]"
        raise ValueError(f"w_ih: expected shape {wanted}, got {w_ih.shape}")
    rows, columns = w_ih.shape
    options.divisor("heads", heads, "hidden_size", rows // gates)
    w_hr = parameters.get("w_hr")
    if w_hr is not None and w_hr.ndim != 2:
        raise ValueError(f"w_hr: expected shape [P, H], got {w_hr.shape}")
    return columns, rows // gates, 0 if w_hr is None else w_hr.shape[0]


gru = _in_jax(fusedrnn.gru)
gru_layer_norm = _in_jax(fusedrnn.gru_layer_norm)
gru_world_model = _in_jax(fusedrnn.gru_world_model)
indrnn = _in_jax(fusedrnn.indrnn)
lstm = _in_jax(fusedrnn.lstm)
lstm_layer_norm = _in_jax(fusedrnn.lstm_layer_norm)
mingru = _in_jax(fusedrnn.mingru)
minlstm = _in_jax(fusedrnn.minlstm)
rnn = _in_jax(fusedrnn.rnn)
slstm = _in_jax(fusedrnn.slstm)
