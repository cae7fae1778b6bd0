"""Objects of other libraries that have no memory to read: the message names argument and class."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import fusedrnn as fr
from error_support import FLOATS, B, H, T, problem, rejected
from support import backward, forward, same_bits

ALL = (*FLOATS, "lengths", "resets")
IN_JAX = (
    "these functions need values and cannot be traced; call them outside of jax.jit, jax.grad and "
    "jax.vmap; JAX traces those of fusedrnn.jax"
)
IN_TORCH = (
    "these functions need values and cannot be traced; call them outside of torch.compile, "
    "torch.export, torch.fx and torch.func, or in an operator of your own (torch.library.custom_op)"
)


def unreadable(name: str, got: str) -> str:
    return f"{name}: expected an array whose memory can be read, got {got}"


def raises(message: str) -> Any:
    return pytest.raises(TypeError, match=f"^{re.escape(message)}(\n|$)")  # JAX appends notes


class Wrapper(torch.Tensor):
    """Says that it is a tensor, and has none but the one inside."""

    @staticmethod
    def __new__(cls, inside: torch.Tensor) -> Any:
        new = torch.Tensor._make_wrapper_subclass  # type: ignore[attr-defined]
        return new(cls, inside.shape, dtype=inside.dtype)

    def __init__(self, inside: torch.Tensor) -> None:
        self.inside = inside

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments = [value.inside if isinstance(value, cls) else value for value in args]
        return op(*arguments, **(kwargs or {}))


def fake(array: Any) -> Any:
    return FakeTensorMode().from_tensor(torch.from_numpy(array))


def deleted(array: Any) -> Any:
    gone = jnp.asarray(array)
    gone.delete()
    return gone


def donated(array: Any) -> Any:
    gone = jnp.asarray(array).copy()
    jax.jit(lambda a: a.copy(), donate_argnums=0)(gone)
    return gone


def conjugated(array: Any) -> Any:
    return torch.from_numpy(array).to(torch.complex64).conj()


class Lazy:
    """As dask and others have it: an array once somebody asks."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise AssertionError("nobody has asked")


class Interface:
    """What speaks NumPy's older protocol alone."""

    __array_interface__ = np.zeros(3).__array_interface__


class Sparse:
    def __array__(self) -> Any:
        raise AssertionError

    def todense(self) -> Any:
        raise AssertionError


WITHOUT_MEMORY: dict[str, tuple[Callable[[Any], Any], str]] = {
    "fake": (fake, f"FakeTensor: {IN_TORCH}"),
    "meta": (
        lambda array: torch.from_numpy(array).to("meta"),
        "Tensor: the meta device has no memory",
    ),
    "wrapper": (
        lambda array: Wrapper(torch.from_numpy(array)),
        "Wrapper: its class wraps tensors; pass the one that is inside",
    ),
    "sparse": (
        lambda array: torch.from_numpy(array).to_sparse(),
        "Tensor: it is not dense; pass its to_dense()",
    ),
    "conjugated": (conjugated, "Tensor: it is conjugated; pass its resolve_conj()"),
    "deleted": (deleted, "ArrayImpl: it was deleted, or donated to a jitted function"),
    "donated": (donated, "ArrayImpl: it was deleted, or donated to a jitted function"),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", WITHOUT_MEMORY)
def test_arrays_without_memory(kind: str, name: str) -> None:
    make, got = WITHOUT_MEMORY[kind]
    rejected("lstm", TypeError, unreadable(name, got), **{name: make(problem("lstm")[name])})


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_tensors_in_other_forms() -> None:
    x = torch.from_numpy(problem("gru")["x"])
    quantised = torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)
    rejected(
        "gru",
        TypeError,
        unreadable("x", "Tensor: it is quantised; pass its dequantize()"),
        x=quantised,
    )
    got = "Tensor: it is nested; pass its to_padded_tensor(0), and lengths"
    nested = torch.nested.nested_tensor(list(x))
    rejected("gru", TypeError, unreadable("x", got), x=nested)
    nested = torch.nested.nested_tensor(list(x), layout=torch.jagged)
    rejected("gru", TypeError, unreadable("x", f"Nested{got}"), x=nested)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (Lazy(), "Lazy: pass what numpy.asarray makes of it"),
        (Interface(), "Interface: pass what numpy.asarray makes of it"),
        (Sparse(), "Sparse: it is not dense; pass its todense()"),
        (np.float32(1), "float32: pass what numpy.asarray makes of it"),
        (jax.ShapeDtypeStruct((T, B, 4), "float32"), "ShapeDtypeStruct"),
    ],
)
@pytest.mark.parametrize("name", ALL)
def test_what_can_become_an_array(name: str, value: Any, what: str) -> None:
    message = f"{name}: expected an array (NumPy, or an object with __dlpack__), got {what}"
    rejected("lstm", TypeError, message, **{name: value})


# Every door


def doors() -> dict[str, Callable[[], Any]]:
    x = np.ones((T, B, 4), "float32")
    layer = fr.GRU(4, H, seed=0)
    no_memory = torch.empty(1, device="meta")
    *_, tape = fr.gru_forward(**problem("gru"))
    *_, layer_tape = layer.forward(x)
    y, h = np.empty((T, B, H), "float32"), np.empty((1, B, H), "float32")
    return {
        "dh_n": lambda: fr.gru_backward(tape, dh_n=no_memory),
        "out['dh0']": lambda: fr.gru_backward(tape, out={"dh0": no_memory}),
        "out[1][0]": lambda: fr.lstm(**problem("lstm"), out=(y, (no_memory, h[0]))),
        "x": lambda: layer(no_memory),
        "state": lambda: layer(x, no_memory),
        "lengths": lambda: layer(x, lengths=no_memory),
        "out[1]": lambda: layer(x, out=(y, no_memory)),
        "weight_hh_l0": lambda: layer.load_state_dict(
            layer.state_dict() | {"weight_hh_l0": no_memory}
        ),
        "dy": lambda: layer.backward(layer_tape, no_memory),
        "x_t": lambda: layer.freeze().step(no_memory),
        "resets": lambda: layer.freeze()(x, resets=no_memory),
        "out[0]": lambda: layer.freeze().step(x[0], out=(no_memory, h)),
    }


@pytest.mark.parametrize("name", doors())
def test_every_door_names_its_argument(name: str) -> None:
    with raises(unreadable(name, "Tensor: the meta device has no memory")):
        doors()[name]()


# Tracing and transformations


def sum_of(x: Any, like: Any) -> Any:
    weights = {name: like(problem("gru")[name]) for name in ("w_ih", "w_hh")}
    return fr.gru(x, **weights)[0].sum()


JAX_TRANSFORMS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "jit": (jax.jit, "DynamicJaxprTracer"),
    "grad": (jax.grad, "LinearizeTracer"),
    "vmap": (jax.vmap, "BatchTracer"),
}


@pytest.mark.parametrize("transform", JAX_TRANSFORMS)
def test_jax_s_transformations(transform: str) -> None:
    transformed, tracer = JAX_TRANSFORMS[transform]
    x = jnp.ones((T, B, 4))
    x = jnp.stack([x, x]) if transform == "vmap" else x
    with raises(unreadable("x", f"{tracer}: {IN_JAX}")) as caught:
        transformed(lambda x: sum_of(x, jnp.asarray))(x)
    assert isinstance(caught.value.__cause__, jax.errors.ConcretizationTypeError)


def test_a_traced_weight() -> None:
    arguments = problem("gru")
    x, w_hh = arguments["x"], arguments["w_hh"]
    with raises(unreadable("w_ih", f"DynamicJaxprTracer: {IN_JAX}")):
        jax.jit(lambda w: fr.gru(x, w, w_hh)[0])(arguments["w_ih"])


def test_jax_s_callback() -> None:
    arguments = problem("gru")
    expected, _ = fr.gru(**arguments)

    @jax.jit
    def traced(x: Any) -> Any:
        shape = jax.ShapeDtypeStruct((T, B, H), "float32")
        return jax.pure_callback(lambda x: fr.gru(**arguments | {"x": x})[0], shape, x)

    assert np.array_equal(traced(arguments["x"]), expected)


TORCH_TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "vmap": torch.func.vmap,
    "grad": torch.func.grad,
    "jacrev": torch.func.jacrev,
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (x,)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("transform", TORCH_TRANSFORMS)
def test_torch_s_transformations(transform: str) -> None:
    x = torch.ones(T, B, 4)
    x = torch.stack([x, x]) if transform == "vmap" else x
    with raises(unreadable("x", f"Tensor: {IN_TORCH}")):
        TORCH_TRANSFORMS[transform](lambda x: sum_of(x, torch.from_numpy))(x)


def test_torch_s_symbolic_tracing() -> None:
    with raises(unreadable("x", f"Proxy: {IN_TORCH}")):
        torch.fx.symbolic_trace(lambda x: sum_of(x, torch.from_numpy))


def test_torch_s_operators() -> None:
    arguments = {name: torch.from_numpy(value) for name, value in problem("gru").items()}

    @torch.library.custom_op("fusedrnn_tests::gru", mutates_args=())
    def operator(x: torch.Tensor) -> torch.Tensor:
        return fr.gru(**arguments | {"x": x})[0]

    @operator.register_fake
    def shape_of_y(x: torch.Tensor) -> torch.Tensor:
        return x.new_empty(T, B, H)

    x = arguments["x"]
    assert torch.equal(operator(x), fr.gru(**arguments)[0])
    mode = FakeTensorMode()
    with mode:
        assert operator(mode.from_tensor(x)).shape == (T, B, H)


# Memory that goes while it is in use


def test_arrays_that_are_deleted_before_backward() -> None:
    arguments = problem("gru")
    _, tape = forward("gru", **arguments)
    dy = np.ones((T, B, H), "float32")
    expected = backward("gru", tape, dy=dy)
    given = {name: jnp.asarray(value).copy() for name, value in arguments.items()}
    _, tape = forward("gru", **given)
    for array in given.values():
        array.delete()
    gc.collect()
    churn = [jnp.full((T, B, H), float("nan")) for _ in range(100)]
    same_bits(backward("gru", tape, dy=dy), expected)
    del churn


# A library that this knows nothing of, or knows wrongly


def test_advice_never_fails() -> None:
    class Tensor:
        """One of a torch that has changed beyond recognition."""

        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("locked")

    Tensor.__module__ = "torch"
    message = unreadable("x", "Tensor whose __dlpack__ raised BufferError: locked")
    rejected("gru", TypeError, message, x=Tensor())
