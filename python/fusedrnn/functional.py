"""What the functions of all cells share: one layer in one direction, forward and backward.

Letters: T time steps, B batch, I input size, H hidden size, G gate blocks (RNN and IndRNN 1, GRU 3,
LSTM and sLSTM 4, minGRU 2, minLSTM 3).
Arrays are NumPy arrays or anything with `__dlpack__` (PyTorch, JAX, CuPy, ...), read without a copy
where their last axis is dense. Results, gradients too, are of the kind of `x` (`fusedrnn.interop`
says how that is found), on its device, and of its dtype: float32, float64, bfloat16 (in NumPy by
the package ml_dtypes) or float16, one a call. They are no part of PyTorch's graph, whether or not a
tensor given requires a gradient, nor of what JAX or PyTorch traces: what is traced has no values.

All arrays of a call lie on the CPU, or all on one CUDA device, where `lengths`, `mask` and `resets`
alone may stay on the CPU (as lists and NumPy arrays do). On a CUDA device work goes on the current
stream of the library of `x`, results and memory come from that library, and nothing waits for the
device; so lengths there are not checked but limited to 0..T, and the work is that of all steps,
while lengths on the CPU make it that of the steps that exist. A call can be captured in a CUDA
graph. The same call gives the same bits; in calls of other shapes a product may sum in another
order. `fusedrnn.cuda_arrays` has what is asked of a library.

The 16-bit types are for storage: matrix products, gates and the cell state within a call are
float32. docs/math.md says what is rounded where.

A tape refers to `x` and the parameters of its forward call: leave them as they are until the last
backward. With `FUSEDRNN_CHECK=1` in the environment a backward says which of them, on the CPU, was
written to in between. All else the tape owns; `y` and the states may be changed at any time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from fusedrnn import _core, options, stale
from fusedrnn.interop import A, as_it_is, converter_to_kind_of, warn_of_lost_gradients
from fusedrnn.runs import of_records

R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Delegated:
    """An x whose call another library runs: it takes the arguments of `run` but the function."""

    x: Any
    run: Callable[..., Any]


class Call(NamedTuple):
    """What a forward function was given, for who runs it again."""

    cell: str
    x: Any
    parameters: tuple[Any, ...]
    states: tuple[Any, ...]
    masks: Any
    reverse: bool
    constants: tuple[float, ...]
    heads: int


@dataclass(frozen=True, eq=False)
class Tape(Generic[A]):
    """What a function such as `rnn_forward` saved for its gradients.

    It is immutable: backward may run any number of times, and gives the same bits.
    """

    function: str  # the one that made it, such as "rnn_forward"
    core: _core.Tape = field(repr=False)
    to_kind: Callable[[Any], A] = field(repr=False)
    stamps: Mapping[str, stale.Stamp] = field(repr=False)
    given: tuple[Any, ...] = field(repr=False)

    @property
    def call(self) -> Call:
        """What the forward function was given."""
        return Call(*self.given)

    @property
    def reserve(self) -> Any:
        """What the forward pass computed for backward, as a NumPy array of bytes.

        It may be copied or saved; None on a CUDA device.
        """
        return self.core.reserve

    def gates(self) -> dict[str, A]:
        """Return the gates of every step, for looking inside; nothing goes back through them.

        Returns
        -------
        dict
            Arrays [T, B, H] by the letter of the gate, in the order of the weights' blocks: "i",
            "f", "g" and "o" of an LSTM (without "f" where its gates are coupled), "r", "z" and "n"
            of a GRU. They are as they leave their sigmoid or tanh, rounded where the tape keeps
            them so (`rnn`, compute_dtype), and zero where a step does not exist; of the dtype and
            the kind of `x`.

        Raises
        ------
        ValueError
            For a tape that has none: of a cell without gates, or with ``memory="lean"``, limits,
            other activations than the usual ones or peepholes beside a projection.
        """
        return cut_gates(self.core, 0, self.to_kind)


def parameter_names(core: _core.Tape) -> tuple[str, ...]:
    """Of the network, run by run."""
    return tuple(name for _, name, _, _ in core.network.parameters)


def cut_gates(core: _core.Tape, number: int, to_kind: Callable[[Any], Any]) -> dict[str, Any]:
    """The gates of a run by letter."""
    names = _core.gate_names(of_records(core.network.runs)[0].cell)
    if not names:
        raise ValueError(
            "gates: expected the tape of a cell with gates and the usual activations, without clip "
            "and without peepholes beside a projection or recurrent dropout of candidates"
        )
    if core.network.lean:
        raise ValueError("gates: expected a tape with memory='default', got one with 'lean'")
    whole = to_kind(core.gates(number))
    size = whole.shape[-1] // len(names)
    return {name: whole[..., k * size : (k + 1) * size] for k, name in enumerate(names)}


def run(
    cell: str,
    x: A,
    parameters: tuple[Any, ...],
    states: tuple[Any, ...],
    masks: tuple[Any, Any, Any, object, tuple[Any, ...]],
    reverse: object,
    compute_dtype: object,
    out: object,
    function: str = "",
    *,
    return_cells: object = False,
    return_gates: object = False,
    constants: tuple[float, ...] = (),
    memory: object = "default",
    heads: Any = 1,
) -> tuple[A, tuple[A, ...], tuple[Any, ...], Any]:
    """y, the states after the last step, those of every step, and a forward function's tape.

    `masks` are lengths, mask, resets, padding and the reset states. Of every step are the states
    beyond h, where `return_cells` asks for them, and behind them the gates by letter, where
    `return_gates` does; the tape is there for a function's name. No constants are the usual ones.
    """
    if isinstance(x, Delegated):
        given = (cell, x.x, parameters, states, masks, reverse, compute_dtype, out)
        found: tuple[Any, Any, Any, Any] = x.run(
            *given, return_cells, return_gates, constants, heads
        )
        return found
    y_out, states_out, cells_out = None, None, None
    shown: tuple[str, ...] = ()
    if return_cells is not False and options.flag("return_cells", return_cells):
        shown = options.STATES[1 : len(states)]
        cells_out = (None,) * len(shown)
    shows_gates = return_gates is not False and options.flag("return_gates", return_gates)
    is_lean = options.is_lean(memory)
    if shows_gates and not _core.gate_names(cell):
        raise ValueError(
            "return_gates: expected False with clip, cell_clip, activations or peepholes beside a "
            "projection, with which no gates are kept, got True"
        )
    if shows_gates and is_lean:
        raise ValueError("return_gates: expected False with memory='lean', got True")
    if out is not None:
        ends = tuple(f"{name}_n" for name in options.STATES[: len(states)])
        y_out, states_out, cells_out = options.result_arrays(out, "y", ends, shown)
    backwards = options.flag("reverse", reverse)
    computed_in = None if compute_dtype is None else options.compute_dtype(compute_dtype)
    masked = options.masks(*masks)
    results: Any
    try:
        results = _core.run(
            cell,
            x,
            parameters,
            states,
            masked,
            backwards,
            computed_in,
            function != "" or shows_gates,
            y_out,
            states_out,
            cells_out,
            constants,
            is_lean,
            heads,
        )
    except (TypeError, ValueError) as error:
        if out is None:
            raise
        names = options.result_names(options.STATES[: len(states)], shown)
        raise options.renamed(error, names) from error.__cause__
    y, states_n, cells, tape = results
    if not function and "torch" in sys.modules:
        warn_of_lost_gradients(x, *parameters, *states, *masks[4])
    kind = converter_to_kind_of(x)
    saved = None
    gates = (cut_gates(tape, 0, kind),) if shows_gates else ()
    if function:
        stamps = stale.stamps(
            lambda: {"x": x} | dict(zip(parameter_names(tape), parameters, strict=True))
        )
        fields = {
            "function": function,
            "core": tape,
            "to_kind": kind,
            "stamps": stamps,
            "given": (cell, x, parameters, states, masked, backwards, constants, heads),
        }
        saved = frozen_record(Tape, fields)
    if out is not None or kind is as_it_is:
        return y, states_n, (*cells, *gates), saved
    return kind(y), tuple(map(kind, states_n)), (*map(kind, cells), *gates), saved


def check_tape(function: str, tape: object) -> None:
    """That a tape is of this function, and what it refers to as it was."""
    if not isinstance(tape, Tape):
        raise TypeError(f"tape: expected the tape of {function}, got {type(tape).__name__}")
    if tape.function != function:
        raise ValueError(f"tape: expected the tape of {function}, got that of {tape.function}")
    if tape.stamps:
        stale.verify(tape.stamps)


_names: dict[str, tuple[tuple[str, ...], ...]] = {}


def _gradient_names(
    cell: str, letters: tuple[str, ...], core: _core.Tape
) -> tuple[tuple[str, ...], ...]:
    """All of a cell, then those of parameters, initial states and reset states."""
    known = _names.get(cell)
    if known is None:
        parts = (
            tuple(f"d{name}" for name in parameter_names(core)),
            tuple(f"d{letter}0" for letter in letters),
            tuple(f"dreset_{letter}" for letter in letters),
        )
        known = _names[cell] = (("dx", *parts[0], *parts[1], *parts[2]), *parts)
    return known


def frozen_record(kind: type[R], by_name: dict[str, Any]) -> R:
    """A frozen dataclass of these fields, in a third of the time that its own __init__ takes."""
    made = object.__new__(kind)
    object.__setattr__(made, "__dict__", by_name)
    return made


def gradients(
    function: str,
    tape: Tape[A],
    dy: Any,
    dstates_n: tuple[Any, ...],
    letters: tuple[str, ...],
    out: Mapping[str, Any] | None,
    dcells: tuple[Any, ...] = (),
    clip_dh: object = None,
    return_flow: object = False,
) -> tuple[dict[str, A], dict[str, Any]]:
    """By name; `letters` are those of the states, `dcells` of every step of those beyond h.

    Beside them the norms of the gradients of states at each step, where they are wanted.
    """
    check_tape(function, tape)
    cell = tape.given[0]
    names, parameters, states, resets = _gradient_names(cell, letters, tape.core)
    given: Mapping[str, Any] = {}
    places: tuple[Any, Any, Any, Any] = (None, None, None, None)
    if out is not None:
        absent = {name for name, there in zip(resets, tape.core.resets, strict=True) if not there}
        given = options.outputs(out, tuple(name for name in names if name not in absent))
        of_parameters, of_states, of_resets = (
            tuple(map(given.get, part)) for part in (parameters, states, resets)
        )
        places = given.get("dx"), of_parameters, of_states, of_resets
    try:
        dx, dparameters, dstates, dresets, norms = tape.core.backward(
            dy,
            dstates_n,
            None if not dcells or all(gradient is None for gradient in dcells) else dcells,
            True,
            *places,
            options.flag("return_flow", return_flow),
            options.clip_dh(clip_dh),
        )
    except (TypeError, ValueError) as error:
        if out is None:
            raise
        named = {name: f"out[{name!r}]" for name in given}
        raise options.renamed(error, named) from error.__cause__
    found = (dx, *dparameters, *dstates, *dresets)
    to_kind = tape.to_kind
    stays = to_kind is as_it_is
    by_name: dict[str, A] = {}
    for i, name in enumerate(names):  # zip(..., strict=True) takes twice as long
        gradient = found[i]
        if gradient is not None:
            by_name[name] = gradient if stays or name in given else to_kind(gradient)
    flow: dict[str, Any] = {}
    if norms is not None:
        for i, letter in enumerate(letters):  # a comprehension takes twice as long
            flow[letter] = norms[i]
    return by_name, flow
