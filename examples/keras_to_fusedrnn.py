"""A recurrent network of Keras, served by steps without Keras: the same numbers, from one file.

    pip install fusedrnn keras jax
    python examples/keras_to_fusedrnn.py

The network tells at each step of a noisy wave how far its cycle is. Its two LSTM layers become one
layer of fusedrnn, frozen into a file that needs neither Keras nor this script; its dense layer is a
product of NumPy.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "jax")
import keras

import fusedrnn as fr
from fusedrnn.convert import from_keras


def waves(count: int, steps: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Noisy waves [B, T, 1] of several speeds, and the sine and cosine of their phases."""
    phase = rng.uniform(0.1, 0.4, (count, 1)) * np.arange(steps) + rng.uniform(0, 6, (count, 1))
    x = np.sin(phase) + rng.normal(0, 0.3, phase.shape)
    return x[..., None].astype(np.float32), np.stack([np.sin(phase), np.cos(phase)], axis=-1)


def trained(epochs: int, units: int, rng: np.random.Generator) -> Any:
    model = keras.Sequential(
        [
            keras.Input((None, 1)),
            keras.layers.LSTM(units, return_sequences=True),
            keras.layers.LSTM(units, return_sequences=True),
            keras.layers.Dense(2),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    x, target = waves(512, 64, rng)
    model.fit(x, target, batch_size=64, epochs=epochs, verbose=0)
    return model


def moved(model: Any, path: str) -> tuple[Any, Any]:
    """Write the recurrent layers into a file; return the dense layer's arrays."""
    *recurrent, dense = model.layers
    from_keras(recurrent).freeze().save(path)
    weight, bias = dense.get_weights()
    return weight, bias


def served(path: str, weight: Any, bias: Any, x: Any) -> Any:
    """What the file says of x [B, T, 1], a step at a time, as it would come from a sensor."""
    frozen = fr.load_frozen(path)
    state, results = None, []
    for x_t in x.transpose(1, 0, 2):
        y_t, state = frozen.step(np.ascontiguousarray(x_t), state)
        results.append(y_t @ weight + bias)
    return np.stack(results, axis=1)


def main(arguments: Sequence[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--units", type=int, default=24)
    o = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = trained(o.epochs, o.units, rng)
    x, target = waves(4, 200, rng)
    expected = np.asarray(model(x))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "phase.frnn")
        dense = moved(model, path)
        print(f"a file of {os.path.getsize(path):,} bytes")
        begin = time.perf_counter()
        got = served(path, *dense, x)
        seconds = time.perf_counter() - begin
    print(f"mean squared error {np.mean((got - target) ** 2):.4f}")
    print(f"a step of 4 sequences: {seconds / x.shape[1] * 1e6:.0f} µs")
    difference = float(np.abs(got - expected).max())
    print(f"largest difference from Keras: {difference:.1e}")
    return difference


if __name__ == "__main__":
    main()
