"""Derivatives through fusedrnn.torch: first and second, forward and reverse, vmapped."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import func
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import fusedrnn.torch as bridge
from torch_support import CELLS, LAYERS, OTHERS, check_same, total

# Of PyTorch's own rules for forward mode, where they are first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


def double(make: Any, *sizes: int, **options: Any) -> Any:
    torch.manual_seed(5)
    module = make(*sizes, dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.8, 0.8)
    return module


def functional(module: Any, *constants: Any, **call: Any) -> tuple[Any, list[torch.Tensor]]:
    """A function of x and parameters, with all results in a tuple, and arguments for it."""
    names = [name for name, _ in module.named_parameters()]

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> Any:
        by_name = dict(zip(names, parameters, strict=True))
        results = func.functional_call(module, by_name, (x, *constants), call)
        return tuple(torch.utils._pytree.tree_leaves(results))

    return run, [p.detach().clone().requires_grad_() for p in module.parameters()]


def random_x(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64).requires_grad_()


MASKS = {"lengths": torch.tensor([3, 2]), "padding": "last"}
GRADCHECK = {"fast_mode": True, "check_forward_ad": True}


@pytest.mark.parametrize("name", [*LAYERS, *CELLS, *OTHERS])
def test_gradcheck(name: str) -> None:
    if name in CELLS:
        module, x, call = double(getattr(bridge, name), 2, 3), random_x(2, 2), {}
    else:
        make, options = OTHERS.get(name, (getattr(bridge, name, None), {}))
        module = double(make, 2, 3, 2, bidirectional=True, **options)
        x, call = random_x(3, 2, 2), MASKS
    run, parameters = functional(module, **call)
    assert torch.autograd.gradcheck(run, (x, *parameters), **GRADCHECK)
    assert torch.autograd.gradgradcheck(
        run, (x, *parameters), fast_mode=True, check_fwd_over_rev=True
    )


def test_gradcheck_of_states_and_projection() -> None:
    module = double(bridge.LSTM, 2, 3, proj_size=2)
    state = (random_x(1, 2, 2), random_x(1, 2, 3))
    resets = torch.tensor([[False, False], [True, False], [False, True]])

    def run(x: torch.Tensor, *states: torch.Tensor) -> Any:
        results = module(
            x, states[:2], resets=resets, reset_state=[s[:, 0] for s in states[2:]],
            return_cells=True,
        )  # fmt: skip
        return tuple(torch.utils._pytree.tree_leaves(results))

    inputs = (random_x(3, 2, 2), *state, random_x(1, 1, 2), random_x(1, 1, 3))
    assert torch.autograd.gradcheck(run, inputs, **GRADCHECK)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_gradcheck_of_what_was_drawn() -> None:
    module = double(bridge.GRU, 2, 3, 2, dropout=0.5, zoneout=0.2)
    run, parameters = functional(module)

    def drawn(*inputs: torch.Tensor) -> Any:
        torch.manual_seed(9)
        return run(*inputs)

    inputs = (random_x(3, 2, 2), *parameters)
    assert torch.autograd.gradcheck(drawn, inputs, **GRADCHECK)
    assert torch.autograd.gradgradcheck(drawn, inputs, fast_mode=True)


def test_gradient_penalty_is_torch_nns() -> None:
    """A loss with a gradient's norm in it, as people write it."""
    torch.manual_seed(5)
    theirs = torch.nn.LSTM(2, 3, 2, dtype=torch.float64)
    torch.manual_seed(5)
    ours = bridge.LSTM(2, 3, 2, dtype=torch.float64)
    x = random_x(4, 2, 2)
    found = []
    for module in (theirs, ours):
        (slope,) = torch.autograd.grad(total(module(x)), x, create_graph=True)
        loss = (slope.norm() - 1) ** 2 + total(module(x))
        found.append(torch.autograd.grad(loss, [x, *module.parameters()]))
    check_same(found[1], found[0])


def test_torch_func() -> None:
    module = double(bridge.LSTM, 2, 3, 2)
    run, (w, *others) = functional(module, **MASKS)

    def loss(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return total(run(x, w, *(p.detach() for p in others)))

    x, w = random_x(3, 2, 2), w.detach()
    dx, dw = torch.autograd.grad(loss(x, w.requires_grad_()), (x, w))
    x, w = x.detach(), w.detach()
    check_same(func.grad(loss, (0, 1))(x, w), (dx, dw))
    value, pull = func.vjp(loss, x, w)
    check_same(pull(torch.ones_like(value)), (dx, dw))
    tangent = torch.randn_like(x)
    check_same(func.jvp(lambda x: loss(x, w), (x,), (tangent,)), (value, (dx * tangent).sum()))
    check_same(func.jacfwd(loss)(x, w), dx)
    # Second derivatives in every order of modes, against differences of the first; of x alone, and
    # of a parameter alone, where nobody wants the gradient of x.
    for function, value in ((lambda x: loss(x, w), x), (lambda w: loss(x, w), w)):
        tangent = torch.randn_like(value)
        step, slope = 1e-6 * tangent, func.grad(function)
        expected = (slope(value + step) - slope(value - step)) / 2e-6
        for outer, inner in (
            (func.jacrev, func.jacrev),
            (func.jacfwd, func.jacrev),
            (func.jacrev, func.jacfwd),
        ):
            hessian = outer(inner(function))(value)
            check_same(torch.tensordot(hessian, tangent, tangent.dim()), expected, 1e-7)


def test_third_derivatives_say_that_there_are_none() -> None:
    module = double(bridge.GRU, 2, 3)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return total(module(x))

    def second(x: torch.Tensor) -> torch.Tensor:
        return func.grad(lambda x: func.grad(loss)(x).sum())(x).sum()

    x = random_x(3, 2, 2)
    with pytest.raises(NotImplementedError, match="a third derivative"):
        func.grad(second)(x)
    with pytest.raises(NotImplementedError, match="forward mode over forward mode"):
        func.jacfwd(func.jacfwd(loss))(x)
    (first,) = torch.autograd.grad(loss(x), x, create_graph=True)
    (twice,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="a third derivative"):
        torch.autograd.grad(twice.sum(), x)


def test_no_second_derivatives_of_16_bits() -> None:
    module = double(bridge.GRU, 2, 3).bfloat16()
    x = torch.randn(3, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    (first,) = torch.autograd.grad(total(module(x)), x, create_graph=True)
    with pytest.raises(TypeError, match=r"^x: expected dtype float32 or float64 \(derivatives"):
        first.sum().backward()
    with (
        forward_ad.dual_level(),
        pytest.raises(TypeError, match=r"^x: expected dtype float32 or float64 \(derivatives"),
    ):
        module(forward_ad.make_dual(x, x))


def test_forward_mode_without_gradients() -> None:
    module = double(bridge.GRU, 2, 3)
    x, tangent = random_x(3, 2, 2), torch.randn(3, 2, 2, dtype=torch.float64)
    (dx,) = torch.autograd.grad(total(module(x)), x)
    with torch.no_grad(), forward_ad.dual_level():
        loss = total(module(forward_ad.make_dual(x.detach(), tangent)))
        check_same(forward_ad.unpack_dual(loss).tangent, (dx * tangent).sum())


def test_vmap() -> None:
    module = double(bridge.LSTM, 2, 3, 2, bidirectional=True)
    xs = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    lengths = torch.tensor([3, 2])
    alone = [module(x, lengths=lengths) for x in xs]

    def stacked(parts: Any) -> Any:
        return torch.utils._pytree.tree_map(lambda *tensors: torch.stack(tensors), *parts)

    check_same(torch.vmap(lambda x: module(x, lengths=lengths))(xs), stacked(alone))
    moved = torch.vmap(lambda x: module(x, lengths=lengths), in_dims=2)(xs.movedim(0, 2))
    check_same(moved, stacked(alone))
    # States, masks and resets of one's own; and a single sequence each.
    h, c = torch.randn(2, 4, 4, 2, 3, dtype=torch.float64)
    resets = torch.rand(4, 3, 2) < 0.4

    def call(x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, r: torch.Tensor) -> Any:
        return module(x, (h, c), resets=r)

    each = [call(*arguments) for arguments in zip(xs, h, c, resets, strict=True)]
    check_same(torch.vmap(call)(xs, h, c, resets), stacked(each))
    check_same(torch.vmap(module)(xs[:, :, 0]), stacked([module(x[:, 0]) for x in xs]))
    lengths = torch.tensor([[3, 2], [1, 3], [0, 2], [2, 2]])
    each = [module(x, lengths=n) for x, n in zip(xs, lengths, strict=True)]
    check_same(torch.vmap(lambda x, n: module(x, lengths=n))(xs, lengths), stacked(each))
    nobody = torch.zeros(4, 3, 0, 2, dtype=torch.float64)
    assert torch.vmap(module)(nobody)[0].shape == (4, 3, 0, 6)
    # With gradients around it: the sequences are one batch.
    x = xs.clone().requires_grad_()
    (found,) = torch.autograd.grad(total(torch.vmap(module)(x)), x)
    (expected,) = torch.autograd.grad(total(stacked([module(part) for part in x])), x)
    check_same(found, expected)


def test_vmap_over_weights_and_gradients() -> None:
    modules = [double(bridge.GRU, 2, 3)] + [bridge.GRU(2, 3, dtype=torch.float64) for _ in "ab"]
    stacked, _ = func.stack_module_state(modules)
    x = torch.randn(3, 2, 2, dtype=torch.float64)

    def loss(parameters: Any, x: torch.Tensor) -> torch.Tensor:
        return total(func.functional_call(modules[0], parameters, (x,)))

    check_same(torch.vmap(loss, (0, None))(stacked, x), torch.stack([total(m(x)) for m in modules]))
    one = {name: p.detach() for name, p in modules[0].named_parameters()}
    xs = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    per_sample = torch.vmap(func.grad(loss), (None, 0))(one, xs)
    for i, x in enumerate(xs):
        check_same({n: g[i] for n, g in per_sample.items()}, func.grad(loss)(one, x))
    # Dropout as torch.vmap has it.
    dropped = bridge.GRU(2, 3, 2, dropout=0.5, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(dropped)(xs)
    different, _ = torch.vmap(dropped, randomness="different")(xs[:1].expand_as(xs))
    assert not torch.equal(different[0], different[1])
    same, _ = torch.vmap(dropped, randomness="same")(xs[:1].expand_as(xs))
    assert torch.equal(same[0], same[1])


def test_checkpoint_and_hooks() -> None:
    module = double(bridge.LSTM, 2, 3, 2, dropout=0.5)
    x = random_x(3, 2, 2)

    def loss(keep: bool) -> torch.Tensor:
        torch.manual_seed(7)
        return total(module(x) if keep else checkpoint(module, x, use_reentrant=False))

    wanted = [x, *module.parameters()]
    expected = torch.autograd.grad(loss(True), wanted)
    check_same(torch.autograd.grad(loss(False), wanted), expected, 0.0)
    packed: list[torch.Size] = []

    def pack(tensor: torch.Tensor) -> bytes:
        packed.append(tensor.shape)
        return (tensor.dtype, tensor.shape, tensor.detach().contiguous().numpy().tobytes())  # type: ignore[return-value]

    def unpack(kept: Any) -> torch.Tensor:
        dtype, shape, data = kept
        return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        y = loss(True)
    check_same(torch.autograd.grad(y, wanted), expected, 0.0)
    assert any(len(shape) == 1 and shape[0] > 500 for shape in packed)  # the reserve is one of them


def test_backward_lets_go_of_what_was_saved() -> None:
    """Though results live on."""
    module = double(bridge.GRU, 2, 3)
    saved: list[Any] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.detach().clone()
        saved.append(weakref.ref(copy))
        return copy

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        x = module(random_x(3, 2, 2))
    total(x).backward()
    assert any(ref() is None for ref in saved)
    assert not any(ref() is not None and ref().dtype == torch.uint8 for ref in saved)
    assert x[0].shape == (3, 2, 3)
    x = torch.randn(3, 2, 2, dtype=torch.float64)
    alive = weakref.ref(x)
    y, _ = module(x)
    del x
    assert alive() is not None
    total(y).backward()
    assert alive() is None
    assert y.shape == (3, 2, 3)


def test_changes_in_place_are_seen() -> None:
    module = double(bridge.GRU, 2, 3)
    x = random_x(3, 2, 2)
    loss = total(module(x))
    with torch.no_grad():
        module.weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("kind", ["layer", "cell"])
def test_gradients_that_autograd_batches(kind: str) -> None:
    x = torch.randn((4, 2, 3) if kind == "layer" else (2, 3), dtype=torch.float64)
    made = bridge.LSTM if kind == "layer" else bridge.LSTMCell
    module = made(3, 2, dtype=torch.float64)

    def of(x: torch.Tensor) -> torch.Tensor:
        return module(x)[0]  # type: ignore[no-any-return]

    def loss(x: torch.Tensor) -> torch.Tensor:
        return of(x).sin().sum()

    functional = torch.autograd.functional
    for way, function in ((functional.jacobian, of), (functional.hessian, loss)):
        found = way(function, x, vectorize=True)
        torch.testing.assert_close(found, way(function, x), rtol=1e-12, atol=1e-12)
    forward = functional.jacobian(of, x, vectorize=True, strategy="forward-mode")
    torch.testing.assert_close(forward, functional.jacobian(of, x), rtol=1e-12, atol=1e-12)
    bent = functional.hessian(loss, x, vectorize=True, outer_jacobian_strategy="forward-mode")
    torch.testing.assert_close(bent, functional.hessian(loss, x), rtol=1e-12, atol=1e-12)
