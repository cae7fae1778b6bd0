"""Where cuDNN keeps weights: which part of PyTorch's arrays each of its linear layers is.

A layer has 2 G linear layers: those of the input in gate order, then those of the state. The gates
stand in the order that PyTorch and fusedrnn have: i, f, g, o and r, z, n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..scenarios import GATES


@dataclass(frozen=True)
class Block:
    """Gate `gate` of `matrix` and of `bias`: cuDNN's linear layer `layer`."""

    layer: int
    matrix: str
    bias: str
    gate: int

    def rows(self, tensor: Any, hidden: int) -> Any:
        """The gate's rows of [G*H,...]."""
        return tensor[self.gate * hidden : (self.gate + 1) * hidden]


@dataclass(frozen=True)
class Place:
    """A tensor inside the weight space: offset and strides count elements."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, space: Any) -> Any:
        """The tensor, without its dimensions of length 1."""
        return space.as_strided(self.shape, self.strides, self.offset).squeeze()


def blocks(cell: str) -> list[Block]:
    """Every linear layer of one layer in one direction."""
    gates = GATES[cell]
    return [
        Block(
            layer,
            "w_ih" if layer < gates else "w_hh",
            "b_ih" if layer < gates else "b_hh",
            layer % gates,
        )
        for layer in range(2 * gates)
    ]


def write(
    space: Any, places: dict[tuple[int, str], Place], cell: str, tensors: dict[str, Any]
) -> None:
    """Copy PyTorch's arrays into the weight space."""
    for block, name, view in _views(space, places, cell):
        rows = block.rows(tensors[name], tensors["w_hh"].shape[1])
        view.copy_(rows.reshape(view.shape))


def read(
    space: Any, places: dict[tuple[int, str], Place], cell: str, like: dict[str, Any]
) -> dict[str, Any]:
    """Copies of the arrays in a weight space, shaped as those of `like`."""
    found = {name: like[name].new_empty(like[name].shape) for name in WEIGHTS}
    for block, name, view in _views(space, places, cell):
        rows = block.rows(found[name], like["w_hh"].shape[1])
        rows.copy_(view.reshape(rows.shape))
    return found


WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")


def _views(space: Any, places: dict[tuple[int, str], Place], cell: str) -> list[Any]:
    return [
        (block, name, places[block.layer, kind].view(space))
        for block in blocks(cell)
        for kind, name in (("matrix", block.matrix), ("bias", block.bias))
    ]
