"""Model files: frozen layers written to one file, and read (docs/model_file.md has the format)."""

from __future__ import annotations

import os
from typing import Any

from fusedrnn import _core, options
from fusedrnn.layers import devices
from fusedrnn.layers.base import Layer
from fusedrnn.layers.dropout import Draws
from fusedrnn.layers.frozen import Frozen, path_argument
from fusedrnn.layers.stack import Stack
from fusedrnn.runs import of_records


def load_frozen(path: str | os.PathLike[str]) -> Frozen:
    """Read a model file: what `frozen.save`, or `fusedrnn_frozen_save` of the C library, wrote.

    Parameters
    ----------
    path : path

    Returns
    -------
    Frozen
        Calls and steps have the bits of the saved network's, on a machine with the same instruction
        set; on others they agree as far as sums in another order do.

    Raises
    ------
    OSError
        Where the file cannot be read.
    ValueError
        Where it is no model file, of another version, cut short or changed, or of a network that is
        not layers of one cell and size as the layers here are (C reads it). What a file says is
        checked before it is believed: a hostile one is an error, and nothing in it is executed.

    Examples
    --------
    >>> fr.LSTM(40, 256, seed=0).freeze("int8").save("model.frnn")
    >>> y, (h, c) = fr.load_frozen("model.frnn")(np.ones((5, 2, 40), np.float32))
    >>> y.shape
    (5, 2, 256)
    """
    core = _core.load_frozen(path_argument(path))
    layer = Loaded(os.fspath(path), core.network, core.batch_first)
    frozen = Frozen.__new__(Frozen)
    frozen._hold(core, layer, core.network.compute_dtype or core.network.dtype)
    return frozen


class Loaded(Layer):
    """The layers of a file, in all but their parameters, which the frozen network has."""

    def __init__(self, path: Any, network: _core.Network, batch_first: bool) -> None:
        # Not the constructor of layers, which makes parameters.
        if network.dtype not in options.DTYPES:
            wanted = options.either(map(repr, options.DTYPES))
            raise ValueError(f"{path}: expected a network of {wanted}, got {network.dtype!r}")
        try:
            self._stack = Stack.of_network(network)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        first = of_records(network.runs)[0]
        self._cell: str = first.cell
        self._states = network.states  # type: ignore[misc]  # those of a class, of other layers
        self._device = devices.find("cpu", None)
        self._draws = Draws(0.0, 1, None, False)
        self._training = False
        self.input_size = network.input_size
        self.hidden_size, self.heads = first.hidden_size, first.heads
        self.num_layers, self.bidirectional = self._stack.layers_and_directions()
        self.batch_first = batch_first
        self.dtype = network.dtype
        # Of what is not known of a file, or means nothing to frozen layers.
        self.bias, self.dropout, self.memory = True, 0.0, "default"
        self.compute_dtype, self.device = None, self._device.name
        self._fix()

    def _name(self) -> str:
        return self._cell
