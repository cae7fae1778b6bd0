"""Models made of modules and layers: their names, their training, and their checkpoints."""

from __future__ import annotations

import copy
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import fusedrnn as fr
from fusedrnn import nn
from support import same_bits

T, B, V = 6, 3, 7


class Tagger(nn.Module):
    """Embedding, LSTM with dropout between layers, attention over itself, dropout, linear."""

    def __init__(self, seed: int = 0, hidden: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(V, 4, seed=seed)
        self.rnn = fr.LSTM(4, hidden, 2, dropout=0.3, seed=seed)
        self.attention = nn.Attention(hidden, hidden, score="additive", seed=seed)
        self.head = nn.Sequential(nn.Dropout(0.2, seed=seed), nn.Linear(hidden, V, seed=seed))

    def forward(self, indices: Any) -> tuple[Any, nn.ModuleTape]:
        x, embed = self.embed.forward(indices)
        h, _, rnn = self.rnn.forward(x)
        y, attention = self.attention.forward(h, h)
        logits, head = self.head.forward(y)
        return logits, self.make_tape(embed=embed, rnn=rnn, attention=attention, head=head)

    def backward(self, tape: nn.ModuleTape, dy: Any) -> dict[str, Any]:
        tapes = self.read_tape(tape)
        head = self.head.backward(tapes["head"], dy)
        attention = self.attention.backward(tapes["attention"], head["x"])
        rnn = self.rnn.backward(tapes["rnn"], attention["query"] + attention["memory"])
        embed = self.embed.backward(tapes["embed"], rnn["x"])
        return self.named_gradients(embed=embed, rnn=rnn, attention=attention, head=head)


class Training:
    """A training whose every random number is its own."""

    def __init__(self, seed: int, optimizer: Any = fr.Adam) -> None:
        self.model = Tagger(seed)
        self.optimizer = optimizer(self.model.parameters(), lr=0.05)
        self.generator = np.random.default_rng(seed)

    def steps(self, count: int) -> list[float]:
        losses = []
        for _ in range(count):
            indices = self.generator.integers(0, V, (T, B))
            logits, tape = self.model.forward(indices)
            loss, dy = nn.cross_entropy_grad(logits, indices, out=logits)
            grads = self.model.backward(tape, dy)
            fr.clip_grad_norm(grads, 1.0)
            self.optimizer.step(grads)
            losses.append(loss)
        return losses

    def save(self, path: Any, **more: Any) -> None:
        nn.save_checkpoint(path, self.model, self.optimizer, generator=self.generator, **more)


# --- models ---


def test_names_and_memory_are_those_of_the_parts() -> None:
    model = Tagger()
    names = list(model.parameters())
    assert names[0] == "embed.weight"
    assert names[1:3] == ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]
    assert names[-7:] == [
        "rnn.bias_hh_l1",
        "attention.v",
        "attention.query.weight",
        "attention.memory.weight",
        "attention.memory.bias",
        "head.1.weight",
        "head.1.bias",
    ]
    for name, part in (("embed", model.embed), ("rnn", model.rnn), ("head", model.head)):
        for key, array in part.parameters().items():  # type: ignore[attr-defined]
            assert np.shares_memory(model.parameters()[f"{name}.{key}"], array)
    parameters = model.parameters()
    parameters["rnn.bias_ih_l0"] = np.full(32, 3.0)
    assert (model.rnn.parameters()["bias_ih_l0"] == 3).all()
    parameters["embed.weight"] -= 1
    model.embed.weight -= 1
    same_bits({"": parameters["embed.weight"]}, {"": model.embed.weight})


def test_a_model_learns() -> None:
    training = Training(0)
    losses = training.steps(120)
    assert np.mean(losses[:5]) > 1.8
    assert np.mean(losses[-20:]) < 1.45


def test_gradients_by_differences() -> None:
    model = Tagger()
    wide = {name: array.astype(np.float64) for name, array in model.parameters().items()}
    model.eval()
    indices = np.random.default_rng(0).integers(0, V, (T, B))
    logits, tape = model.forward(indices)
    _, dy = nn.cross_entropy_grad(logits, indices)
    grads = model.backward(tape, dy)
    assert list(grads) == list(model.parameters())
    for name, array in model.parameters().items():
        step = 1e-2
        flat = array.reshape(-1)
        at = int(np.abs(grads[name]).argmax())
        values = []
        for sign in (1, -1):
            flat[at] = np.float32(wide[name].reshape(-1)[at] + sign * step)
            values.append(nn.cross_entropy(model.forward(indices)[0], indices))
        flat[at] = np.float32(wide[name].reshape(-1)[at])
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx(grads[name].reshape(-1)[at], rel=0.02, abs=1e-4), name


def test_parts_train_and_evaluate_together() -> None:
    model = Tagger()
    dropout = model.head._parts["0"]
    assert model.eval() is model
    parts = model, model.rnn, dropout, model.embed
    assert not any(part.training for part in parts)
    indices = np.zeros((T, B), int)
    same_bits({"": model.forward(indices)[0]}, {"": model.forward(indices)[0]})
    assert model.random_state()["rnn"][1] == 0
    model.train()
    assert model.rnn.training
    assert dropout.training
    assert (model.forward(indices)[0] != model.forward(indices)[0]).any()
    assert {name: calls for name, (_, calls) in model.random_state().items()} == {
        "rnn": 2,
        "head.0": 2,
    }


def test_random_state_goes_on() -> None:
    model, other = Tagger(0), Tagger(1)
    indices = np.zeros((T, B), int)
    model.forward(indices)
    other.load_state_dict(model.state_dict())
    other.load_random_state(model.random_state())
    same_bits({"": other.forward(indices)[0]}, {"": model.forward(indices)[0]})
    with pytest.raises(
        ValueError, match=r"^state: expected random states of .* 1 .*|head.0 missing"
    ):
        other.load_random_state({"rnn": (0, 0)})
    before = other.random_state()
    with pytest.raises(ValueError, match=r"^head.0: expected a pair \(seed, calls\), got 1 values"):
        other.load_random_state({"rnn": (5, 5), "head.0": (1,)})
    with pytest.raises(ValueError, match=r"^head.0\[0\]: expected at least 0, got -1"):
        other.load_random_state({"rnn": (5, 5), "head.0": (-1, 0)})
    assert other.random_state() == before


def test_state_dicts_are_copies_and_loaded_whole_or_not() -> None:
    model, other = Tagger(0), Tagger(1)
    state = model.state_dict()
    other.load_state_dict({name: array.astype(np.float64) for name, array in state.items()})
    same_bits(other.state_dict(), state)
    before = model.state_dict()
    state["embed.weight"][...] = 9
    same_bits(model.state_dict(), before)
    wrong = {name: array + 1 for name, array in before.items()} | {"head.1.bias": np.zeros(3)}
    with pytest.raises(ValueError, match=r"^head.1.bias: expected shape \(7,\), got \(3,\)$"):
        model.load_state_dict(wrong)
    wrong["head.1.bias"] = np.zeros(7, int)
    with pytest.raises(TypeError, match=r"^head.1.bias: expected a floating dtype, got int64$"):
        model.load_state_dict(wrong)
    wrong.pop("head.1.bias")
    with pytest.raises(ValueError, match=r"^state_dict: expected the parameters of Tagger"):
        model.load_state_dict(wrong)
    same_bits(model.state_dict(), before)


def test_copies_and_pickles_are_models_of_their_own() -> None:
    model = Tagger()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        same_bits(other.state_dict(), model.state_dict())
        other.embed.weight[...] = 0
        assert other.parameters()["embed.weight"].max() == 0
        assert model.embed.weight.any()
        v = other.attention.v
        v[...] = 0  # what the kernels read is what is shown
        _, weights = other.attention(
            np.ones((1, 1, 8), np.float32), np.ones((2, 1, 8), np.float32), return_weights=True
        )
        assert (weights == 0.5).all()


def test_parts_can_be_replaced_shared_and_removed() -> None:
    model = Tagger()
    model.embed = nn.Embedding(3, 4, seed=0)
    assert model.parameters()["embed.weight"].shape == (3, 4)
    model.again = model.embed
    assert "again.weight" not in model.parameters()
    del model.embed
    assert "again.weight" in model.parameters()
    model.again = model.rnn = fr.GRU(2, 3, dtype="bfloat16")  # whose views are new each time
    assert not any(name.startswith("again") for name in model.parameters())
    del model.again
    names = list(model.parameters())
    model.again = model
    assert list(model.parameters()) == names
    model.again = None
    assert not any(name.startswith(("again", "embed")) for name in model.parameters())


def test_gradients_of_what_is_shared_are_added_up() -> None:
    linear = nn.Linear(3, 3, dtype="float64", seed=0)
    # The whole model twice, within another part, and by its arrays alone.
    nested = nn.Sequential(nn.Sequential(linear), nn.Sequential(linear))
    twin = nn.Linear(3, 3, dtype="float64", seed=1)
    for name, array in linear.parameters().items():
        twin.add_parameter(name, array)
    x = np.random.default_rng(0).standard_normal((2, 3))
    w, b = linear.weight, linear.bias
    assert b is not None
    for model in (nn.Sequential(linear, linear), nested, nn.Sequential(linear, twin)):
        first = "0.0." if model is nested else "0."
        assert list(model.parameters()) == [f"{first}weight", f"{first}bias"]
        y, tape = model.forward(x)
        grads = model.backward(tape, np.ones_like(y))
        # Of sum(W (W x + b) + b), by hand.
        through = np.ones((2, 3)) @ w
        weight = np.ones((2, 3)).T @ (x @ w.T + b) + through.T @ x
        np.testing.assert_allclose(grads[f"{first}weight"], weight)
        np.testing.assert_allclose(grads[f"{first}bias"], 2 + through.sum(0))
        np.testing.assert_allclose(grads["x"], through @ w)
        fr.Adam(model.parameters()).step({name: grads[name] for name in model.parameters()})


def test_sparse_gradients_of_what_is_shared_are_added_up() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(5, 3, seed=0)
            self.out = nn.Linear(3, 5, bias=False, seed=0)
            self.out.add_parameter("weight", self.embed.weight)

    model = Tied()
    assert list(model.parameters()) == ["embed.weight"]
    y, embed = model.embed.forward([1, 1, 4])
    logits, out = model.out.forward(y)
    of_out = model.out.backward(out, np.ones_like(logits))
    parts = [model.embed.backward(embed, of_out["x"], sparse=sparse) for sparse in (False, True)]
    wanted = of_out["weight"] + parts[0]["weight"]
    for part in parts:
        for uses in ({"embed": part, "out": of_out}, {"out": of_out, "embed": part}):
            found = model.named_gradients(**uses)["embed.weight"]
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, wanted)
    twice = parts[1]["weight"] + parts[1]["weight"]
    np.testing.assert_array_equal(twice, 2 * parts[0]["weight"])


def test_time_distributed() -> None:
    inner = nn.Sequential(nn.Linear(4, 3, seed=0), nn.Linear(3, 2, seed=1))
    outer = nn.TimeDistributed(inner)
    x = np.random.default_rng(0).standard_normal((T, B, 4)).astype(np.float32)
    y, tape = outer.forward(x)
    assert y.shape == (T, B, 2)
    same_bits({"": y}, {"": inner(x)})
    same_bits({"": outer(x)}, {"": y})
    grads = outer.backward(tape, y)
    _, plain = inner.forward(x)
    expected = inner.backward(plain, y)
    same_bits(grads, {("" if k == "x" else "module.") + k: v for k, v in expected.items()})


def test_tapes_belong_to_their_module(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = nn.Linear(2, 2, seed=0), nn.Linear(2, 2, seed=0)
    x = np.ones((3, 2), np.float32)
    _, tape = one.forward(x)
    with pytest.raises(ValueError, match=r"^tape: expected one of this module, Linear\(2, 2\)"):
        other.backward(tape, x)
    with pytest.raises(TypeError, match=r"^tape: expected one of this module's forward, got dict"):
        one.backward({}, x)  # type: ignore[arg-type]
    monkeypatch.setenv("FUSEDRNN_CHECK", "1")
    for change in (x, one.weight):
        _, tape = one.forward(x)
        one.backward(tape, x)
        change[...] += 1
        with pytest.raises(ValueError, match=r"expected the values of the forward call"):
            one.backward(tape, x)


# --- checkpoints ---


@pytest.mark.parametrize("optimizer", [fr.Adam, fr.AdamW, fr.RMSprop])
def test_resumed_training_is_that_which_was_never_interrupted(
    optimizer: Any, tmp_path: Path
) -> None:
    path = tmp_path / "training.safetensors"
    whole = Training(0, optimizer)
    whole.steps(5)
    whole.save(path, metadata={"step": 5, "name": "né\n"}, arrays={"state": np.arange(3)})
    expected = whole.steps(5)

    resumed = Training(1, optimizer)
    checkpoint = nn.load_checkpoint(path)
    assert checkpoint.metadata == {"step": 5, "name": "né\n"}
    same_bits(checkpoint.arrays, {"state": np.arange(3)})
    checkpoint.restore(resumed.model, resumed.optimizer, generator=resumed.generator)
    assert resumed.steps(5) == expected
    same_bits(resumed.model.state_dict(), whole.model.state_dict())
    same_bits(resumed.optimizer.state_dict(), whole.optimizer.state_dict())


def test_a_checkpoint_of_a_layer_alone(tmp_path: Path) -> None:
    layer = fr.GRU(3, 4, 2, dropout=0.5, seed=0)
    x = np.ones((5, 2, 3), np.float32)
    layer.forward(x)
    nn.save_checkpoint(tmp_path / "file", layer)
    other = fr.GRU(3, 4, 2, dropout=0.5, seed=9)
    nn.load_checkpoint(str(tmp_path / "file")).restore(other)
    same_bits({"": other.forward(x)[0]}, {"": layer.forward(x)[0]})


@pytest.mark.parametrize("kind", ["PCG64", "MT19937", "Philox", "SFC64"])
def test_generators_go_on(kind: str, tmp_path: Path) -> None:
    generator = np.random.Generator(getattr(np.random, kind)(5))
    generator.random(3)
    nn.save_checkpoint(tmp_path / "file", nn.Linear(1, 1), generator=generator)
    other = np.random.Generator(getattr(np.random, kind)(6))
    nn.load_checkpoint(tmp_path / "file").restore(nn.Linear(1, 1), generator=other)
    assert other.random(5).tolist() == generator.random(5).tolist()
    wrong = np.random.Generator(np.random.PCG64DXSM(0))
    with pytest.raises(ValueError, match=f"^generator: expected one of {kind}, got PCG64DXSM$"):
        nn.load_checkpoint(tmp_path / "file").restore(nn.Linear(1, 1), generator=wrong)


def test_other_programs_read_the_weights(tmp_path: Path) -> None:
    training = Training(0)
    training.save(tmp_path / "file")
    found = safetensors.numpy.load_file(tmp_path / "file")
    for name, value in training.model.parameters().items():
        same_bits({"": found[f"model.{name}"]}, {"": value})
    same_bits(fr.convert.load_safetensors(tmp_path / "file"), found)


def test_any_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    Training(0).save(path, metadata={"a": 1})
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little")
    places = [0, 9, header // 2, header + 7, header + 9, len(data) // 2, len(data) - 1]
    places += list(range(20, header, 97))
    for place in places:
        broken = bytearray(data)
        broken[place] ^= 4
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"^path: expected a"):
            nn.load_checkpoint(path)
    for size in (0, 5, header, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"^path: expected a safetensors file"):
            nn.load_checkpoint(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ValueError, match=r"^path: expected a"):
        nn.load_checkpoint(path)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    safetensors.numpy.save_file({"a": np.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"^path: expected a checkpoint of format fusedrnn-"):
        nn.load_checkpoint(path)
    safetensors.numpy.save_file({"a": np.zeros(2)}, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"got pt$"):
        nn.load_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        nn.load_checkpoint(tmp_path / "none")
    os.mkfifo(tmp_path / "fifo")
    for other in (tmp_path, tmp_path / "fifo", "/dev/zero"):
        with pytest.raises(ValueError, match=r"^path: expected a file"):
            nn.load_checkpoint(other)
        with pytest.raises(ValueError, match=r"^path: expected a file or nothing"):
            nn.save_checkpoint(other, nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"^path: expected a path, got int$"):
        nn.load_checkpoint(3)


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    model = nn.Linear(2, 2, seed=0)
    nn.save_checkpoint(path, model)
    before = path.read_bytes()
    refused: list[tuple[dict[str, Any], str]] = [
        ({"metadata": {"a": {1, 2}}}, "^metadata: expected what JSON can hold"),
        ({"metadata": {"a": float("nan")}}, "^metadata: expected what JSON can hold"),
        ({"metadata": {"a": (1, 2)}}, "^metadata: expected what JSON gives back as it was"),
        ({"metadata": {1: 2}}, "^metadata: expected what JSON gives back as it was"),
        ({"metadata": [1]}, "^metadata: expected a mapping, got list$"),
        ({"arrays": {"a": np.array(["x"])}}, "^arrays.a: expected a dtype that safetensors has"),
        ({"arrays": {"a": np.ones(2, ml_dtypes.float8_e4m3fn)}}, "got float8_e4m3fn$"),
        ({"arrays": {1: np.zeros(1)}}, "^arrays: expected names that are str, got 1$"),
        ({"arrays": 3}, "^arrays: expected a mapping, got int$"),
        ({"optimizer": 3}, "^optimizer: expected one of fusedrnn's, got int$"),
        ({"generator": 3}, "^generator: expected a numpy.random.Generator, got int$"),
    ]
    for options, message in refused:
        with pytest.raises(TypeError, match=message):
            nn.save_checkpoint(path, model, **options)
    with pytest.raises(ValueError, match=r"^arrays.a: expected an array, got rows of several"):
        nn.save_checkpoint(path, model, arrays={"a": [[1], [2, 3]]})
    with pytest.raises(ValueError, match=r"^arrays: expected names of Unicode, got '\\ud800'$"):
        nn.save_checkpoint(path, model, arrays={"\ud800": np.zeros(1)})
    with pytest.raises(TypeError, match=r"^model: expected a Module or a layer, got dict$"):
        nn.save_checkpoint(path, {})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^model: expected a Module or a layer, got dict$"):
        nn.load_checkpoint(path).restore({})  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["file"]


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    Training(0).save(path)
    checkpoint = nn.load_checkpoint(path)
    other = Training(1, fr.RMSprop)
    before = other.model.state_dict()
    with pytest.raises(ValueError, match=r"^optimizer: expected Adam, got RMSprop$"):
        checkpoint.restore(other.model, other.optimizer)
    with pytest.raises(
        ValueError, match=r"^rnn.weight_ih_l0: expected shape \(36, 4\), got \(32, 4\)$"
    ):
        checkpoint.restore(Tagger(0, hidden=9))
    of_head = fr.Adam(other.model.head.parameters())
    drawn = other.model.random_state()
    checkpoint.model["rnn.weight_ih_l0"] += 1
    with pytest.raises(ValueError, match=r"^state_dict: expected what state_dict of such an optim"):
        checkpoint.restore(other.model, of_head)
    assert other.model.random_state() == drawn
    same_bits(other.model.state_dict(), before)
    nn.save_checkpoint(path, other.model)
    checkpoint = nn.load_checkpoint(path)
    with pytest.raises(ValueError, match=r"^optimizer: expected None, as the checkpoint has none$"):
        checkpoint.restore(other.model, other.optimizer)
    with pytest.raises(ValueError, match=r"^generator: expected None, as the checkpoint has none$"):
        checkpoint.restore(other.model, generator=other.generator)


def test_any_array_that_is_written_is_read_again(tmp_path: Path) -> None:
    given = {
        "other order": np.arange(3, dtype=">f4"),
        "small": np.arange(3, dtype=">i2"),
        "strided": np.arange(6)[::2],
        "scalar": np.float64(3),
        "half": np.ones(2, ml_dtypes.bfloat16),
    }
    for dtype in ("bfloat16", "float16"):
        layer = fr.GRU(2, 3, dtype=dtype, seed=0)
        nn.save_checkpoint(tmp_path / "file", layer, arrays=given)
        checkpoint = nn.load_checkpoint(tmp_path / "file")
        for name, array in given.items():
            np.testing.assert_array_equal(checkpoint.arrays[name], array)
        checkpoint.restore(other := fr.GRU(2, 3, dtype=dtype, seed=1))
        same_bits(other.state_dict(), layer.state_dict())


def test_a_path_that_leads_nowhere_is_named_as_it_was_given(tmp_path: Path) -> None:
    model = nn.Linear(2, 2, seed=0)
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for use in (nn.load_checkpoint, lambda path: nn.save_checkpoint(path, model)):
        with pytest.raises(OSError, match=r"Too many levels of symbolic links: .*one"):
            use(tmp_path / "one")
        with pytest.raises(ValueError, match=r"^path: expected a path, got 'a\\x00b'$"):
            use("a\0b")
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]
    for path in (tmp_path / "no" / "file", Path("/proc/file")):
        with pytest.raises(FileNotFoundError, match=f"'{path}'$"):
            nn.save_checkpoint(path, model)


def test_the_header_holds_what_is_no_array(tmp_path: Path) -> None:
    Training(0).save(tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    assert sorted(header) == ["format", "generator", "metadata", "optimizer", "random", "sha256"]
    assert json.loads(header["random"]).keys() == {"rnn", "head.0"}


def test_without_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nn.save_checkpoint(tmp_path / "file", nn.Linear(1, 1))
    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"^save_checkpoint needs the package safetensors"):
        nn.save_checkpoint(tmp_path / "other", nn.Linear(1, 1))
    with pytest.raises(ImportError, match=r"^load_checkpoint .*pip install safetensors"):
        nn.load_checkpoint(tmp_path / "file")
