"""One direction of one layer over a batch: the time loop, its backward, and the masks.

`active[t, b]` is a step within its sequence, `cut[t, b]` one that the state does not reach from
the step before it in the order of computation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .cells import CELLS, Saved, States
from .rounding import EXACT, Array, Rounding

Mask = NDArray[np.bool_]


def forward(cell: str, x: ArrayLike, **arguments: Any) -> dict[str, Array]:
    """Outputs y [T,B,H], h_n [B,H] (and c_n, ...), as `oracle.forward`; takes `rounding` too."""
    wants_cells = arguments.pop("return_cells", False)
    outputs = _Run(cell, x, **arguments).outputs
    cells = CELLS[cell].states[1:]
    return {name: value for name, value in outputs.items() if name not in cells or wants_cells}


def gradients(
    cell: str,
    x: ArrayLike,
    *,
    dy: ArrayLike | None = None,
    **arguments: Any,
) -> dict[str, Array]:
    """Gradients dx, dw_ih, dw_hh, dh0 (db_ih, db_hh, dc0), as `oracle.gradients` gives them."""
    letters = CELLS[cell].states
    names = (*(f"{s}_n" for s in letters), *letters[1:])
    upstream = {name: arguments.pop(f"d{name}", None) for name in names}
    return _Run(cell, x, **arguments).backward({"y": dy, **upstream})


class _Run:
    """A forward pass with everything that its backward needs."""

    def __init__(
        self,
        cell: str,
        x: ArrayLike,
        *,
        w_ih: ArrayLike,
        w_hh: ArrayLike | None = None,
        b_ih: ArrayLike | None = None,
        b_hh: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        padding: str = "zero",
        reverse: bool = False,
        heads: int = 1,
        rounding: Rounding = EXACT,
        **options: Any,
    ) -> None:
        self.cell, self.rounding, self.has_w_hh = CELLS[cell], rounding, w_hh is not None
        self.heads = heads
        initial = {f"{s}0": options.pop(f"{s}0", None) for s in self.cell.states}
        self.resets = {s: options.pop(f"reset_{s}", None) for s in self.cell.states}
        biases = {"b_ih": b_ih, "b_hh": b_hh}
        given = options | biases
        self.vectors = {name: _float64(given[name]) for name in self.cell.vectors}
        biases = {name: b for name, b in biases.items() if name not in self.vectors}
        options = {name: o for name, o in options.items() if name not in self.vectors}
        self.options = options
        if w_hh is None:  # of a cell that has none, and looks at none
            rows = len(np.asarray(w_ih))
            w_hh = np.zeros((rows, rows // self.cell.gates))
        self.w_ih, self.w_hh = (rounding.operand(_float64(w)) for w in (w_ih, w_hh))
        self.w_hh = _block_diagonal(self.w_hh, heads)
        self.biases = biases
        x = _float64(x)
        steps, batch = x.shape[:2]
        self.active, self.cut = _masks(steps, batch, lengths, resets, mask, reverse)
        self.shows_last = padding == "last"
        # A NaN in the padding reaches nothing.
        self.x = rounding.operand(np.where(self.active, x, 0.0))
        self.order = range(steps)[::-1] if reverse else range(steps)

        width, units = self.w_hh.shape[1], self.w_hh.shape[0] // self.cell.gates
        states: States = ()
        for name, state in initial.items():
            zeros = np.zeros((batch, width if name == "h0" else units))
            states += (zeros if state is None else _float64(state),)

        fresh = list(self.resets.values())

        a = self.x @ self.w_ih.T + self._bias("b_ih")
        shown = [np.zeros((steps, *state.shape)) for state in states]
        self.saved: list[Saved] = [()] * steps
        for t in self.order:
            live = self._live(t)
            entering = tuple(
                np.where(self.cut[t], 0.0 if new is None else _float64(new), s)[live]
                for s, new in zip(states, fresh, strict=True)
            )
            new, self.saved[t] = self.cell.step(
                a[t, live],
                entering,
                self.w_hh,
                self.vectors or self._bias("b_hh"),
                rounding,
                **self.options,
            )
            new = (rounding.state(new[0]), *new[1:])
            states = tuple(_put(s, live, n) for n, s in zip(new, states, strict=True))
            for sequence, state in zip(shown, states, strict=True):
                sequence[t] = np.where(self.shows_last | self.active[t], state, 0.0)
        final = zip(self.cell.states, states, strict=True)
        ends = {f"{letter}_n": rounding.result(state) for letter, state in final}
        y, *cells = shown
        named = zip(self.cell.states[1:], cells, strict=True)
        self.outputs = {"y": y, **{name: rounding.result(c) for name, c in named}, **ends}

    def _live(self, t: int) -> NDArray[np.intp]:
        """The sequences that have step t: the others are in no sum, which a NaN would reach."""
        return np.flatnonzero(self.active[t])

    def _bias(self, name: str) -> Array:
        bias = self.biases.get(name)
        return np.zeros(len(self.w_ih)) if bias is None else _float64(bias)

    def backward(self, upstream: dict[str, ArrayLike | None]) -> dict[str, Array]:
        given = {name: _float64(grad) for name, grad in upstream.items() if grad is not None}
        if unknown := given.keys() - self.outputs.keys():
            raise TypeError(f"no outputs {sorted(unknown)}")
        seeds = {name: given.get(name, np.zeros_like(out)) for name, out in self.outputs.items()}
        dstates = tuple(seeds[f"{letter}_n"] for letter in self.cell.states)

        dresets = {
            letter: np.zeros(d.shape[1])
            for letter, d in zip(self.cell.states, dstates, strict=True)
        }
        da = np.zeros((*self.x.shape[:2], len(self.w_ih)))
        db_hh = np.zeros(len(self.w_ih))
        dvectors = {name: np.zeros_like(vector) for name, vector in self.vectors.items()}
        dw_hh = np.zeros_like(self.w_hh)
        for t in self.order[::-1]:
            live = self._live(t)
            shown = self.shows_last | self.active[t]
            dstates = tuple(
                d + np.where(shown, seeds[name][t], 0.0)
                for name, d in zip(("y", *self.cell.states[1:]), dstates, strict=True)
            )
            da[t, live], du, dw_hh_t, entering = self.cell.backward(
                tuple(d[live] for d in dstates),
                self.saved[t],
                self.w_hh,
                *((self.vectors,) if self.vectors else ()),
                self.rounding,
                **self.options,
            )
            dw_hh += dw_hh_t
            if self.vectors:
                dvectors = {name: sums + du[name] for name, sums in dvectors.items()}
            else:
                db_hh += du.sum(axis=0)
            for letter, new in zip(self.cell.states, entering, strict=True):
                dresets[letter] += np.where(self.cut[t, live], new, 0.0).sum(axis=0)
            dstates = tuple(
                _put(old, live, np.where(self.cut[t, live], 0.0, new))
                for new, old in zip(entering, dstates, strict=True)
            )

        grads = {
            "dx": np.where(self.active, da @ self.w_ih, 0.0),
            "dw_ih": np.einsum("tbg,tbi->gi", da, self.x, optimize=True),
            **({"dw_hh": _blocks(dw_hh, self.heads)} if self.has_w_hh else {}),
            **{f"d{s}0": d for s, d in zip(self.cell.states, dstates, strict=True)},
        }
        biases = {"b_ih": da.sum(axis=(0, 1)), "b_hh": db_hh}
        grads |= {f"d{b}": biases[b] for b, v in self.biases.items() if v is not None}
        grads |= {f"d{name}": sums for name, sums in dvectors.items()}
        grads |= {f"dreset_{s}": d for s, d in dresets.items() if self.resets[s] is not None}
        return {name: self.rounding.result(grad) for name, grad in grads.items()}


def _put(whole: Array, rows: NDArray[np.intp], values: Array) -> Array:
    """A copy of `whole` with other values in some of its rows."""
    changed: Array = whole.copy()
    changed[rows] = values
    return changed


def _block_diagonal(w_hh: Array, heads: int) -> Array:
    """[G*H, H] from the blocks [G*H, H/heads] along each gate's diagonal."""
    size = w_hh.shape[1]
    blocks = w_hh.reshape(-1, heads, size, size)
    dense = np.zeros((len(blocks), heads, size, heads, size))
    for head in range(heads):
        dense[:, head, :, head] = blocks[:, head]
    return dense.reshape(len(w_hh), heads * size)


def _blocks(dense: Array, heads: int) -> Array:
    """And back."""
    size = dense.shape[1] // heads
    parts = dense.reshape(-1, heads, size, heads, size)
    return np.stack([parts[:, head, :, head] for head in range(heads)], axis=1).reshape(-1, size)


def _float64(value: ArrayLike) -> Array:
    return np.asarray(value, dtype=np.float64)


def _masks(
    steps: int,
    batch: int,
    lengths: ArrayLike | None,
    resets: ArrayLike | None,
    mask: ArrayLike | None,
    reverse: bool,
) -> tuple[Mask, Mask]:
    """`active` and `cut`, each [T,B,1]. A reset of a step that is not active does nothing."""
    t = np.arange(steps)[:, None, None]
    ends = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    active = t < ends[:, None]
    if mask is not None:
        active &= np.asarray(mask, dtype=np.bool_).reshape(steps, batch, 1)
    cut = np.zeros((steps, batch, 1), dtype=np.bool_)
    if resets is not None:
        cut = np.asarray(resets, dtype=np.bool_).reshape(steps, batch, 1) & active
        if reverse:  # the boundary before the next active step cuts the state that comes from it
            begins, crossed = cut, np.zeros_like(cut[:1])
            cut = np.zeros_like(begins)
            for step in reversed(range(steps)):
                cut[step : step + 1] = crossed & active[step : step + 1]
                crossed = np.where(active[step : step + 1], begins[step : step + 1], crossed)
    return active, cut
