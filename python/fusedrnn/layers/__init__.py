"""Layers of cells: parameters, stacks, both directions, PyTorch's names.

Letters: T time steps, B batch, I input size, H hidden size, L layers, D directions (1 or 2),
G gate blocks (RNN 1, GRU 3, LSTM 4). `base` is what a user calls, `stack` how layers and directions
follow one another, `devices` where parameters lie, `frozen` layers with packed weights, `loaded`
those of files, `parameters` and `initial` what they are changed by and begin with. The layers
themselves stand beside their functions, in `fusedrnn.cells`.
"""

from fusedrnn.layers.base import Layer
from fusedrnn.layers.frozen import Frozen
from fusedrnn.layers.loaded import load_frozen
from fusedrnn.layers.tape import LayerTape

__all__ = ["Frozen", "Layer", "LayerTape", "load_frozen"]
