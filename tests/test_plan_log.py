"""FUSEDRNN_LOG=plan: what the cost model chose for each call, on standard error."""

from __future__ import annotations

import os
import re
import subprocess
import sys

SCRIPT = """
import numpy as np, fusedrnn as fr
fr.set_num_threads(2)
rng = np.random.default_rng(0)
T, B, I, H = 50, 16, 24, 128
shapes = (T, B, I), (4 * H, I), (4 * H, H)
x, w_ih, w_hh = (rng.standard_normal(shape, dtype="float32") for shape in shapes)
y, state, tape = fr.lstm_forward(x, w_ih, w_hh)
fr.lstm_backward(tape, dy=y)
"""


def run(
    log: str | None, script: str = SCRIPT, latency: str | None = "50"
) -> subprocess.CompletedProcess[str]:
    chosen = {"FUSEDRNN_LOG": log, "FUSEDRNN_CORE_LATENCY_NS": latency}
    env = {k: v for k, v in os.environ.items() if k not in chosen}
    env |= {k: v for k, v in chosen.items() if v is not None}
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def test_nothing_is_printed_without_it() -> None:
    for log in (None, ""):
        done = run(log)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""


def test_every_pass_is_printed_with_its_candidates() -> None:
    done = run("plan")
    assert done.returncode == 0, done.stderr
    headers = re.findall(r"^fusedrnn: (\w+) lstm float32 T=50 B=16 I=24 H=128, ", done.stderr, re.M)
    assert headers == ["forward", "backward"]
    candidates = re.findall(r"^  ([* ]) (\d) x (\d): (\d+) kcycles; .* most in ", done.stderr, re.M)
    grids = {(int(rows), int(units)) for _, rows, units, _ in candidates}
    assert grids == {(1, 1), (2, 1), (1, 2)}
    # The cheapest of each pass is the chosen one, and the header says so.
    for part in re.split(r"^fusedrnn: ", done.stderr, flags=re.M)[1:]:
        costs = re.findall(r"^  ([* ]) (\d) x (\d): (\d+) kcycles", part, re.M)
        chosen = [c for c in costs if c[0] == "*"]
        assert len(chosen) == 1
        assert int(chosen[0][3]) == min(int(c[3]) for c in costs)
        assert f"{chosen[0][1]} parts of the batch x {chosen[0][2]} of the units" in part


STEP = """
import numpy as np, fusedrnn as fr
fr.set_num_threads(2)
frozen = fr.LSTM(512, 512).freeze()
for _ in range(3):
    frozen.step(np.zeros((1, 512), "float32"))
"""


def test_a_step_is_planned_once() -> None:
    done = run("plan", STEP)
    assert done.returncode == 0, done.stderr
    headers = re.findall(r"^fusedrnn: (.*) T=1 B=1 I=512 H=512, .*: (.*)$", done.stderr, re.M)
    assert headers == [("step lstm float32", "1 parts of the batch x 2 of the units")]


STEPS = """
import numpy as np, fusedrnn as fr
fr.set_num_threads(2)
for H in 16, 32, 64, 128, 512:
    w = np.zeros((4 * H, H), "float32")
    y, state, tape = fr.lstm_forward(np.zeros((2000 if H < 512 else 20, 1, H), "float32"), w, w)
    fr.lstm_backward(tape, dy=y)
"""


def units_shared(latency: str | None) -> dict[tuple[str, int], bool]:
    """By pass and H, whether threads share the units of a single sequence."""
    done = run("plan", STEPS, latency)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"(\w+) lstm .* H=(\d+), .*: 1 parts of the batch x (\d) of", done.stderr)
    assert len(found) == 10
    return {(name, int(units)): count == "2" for name, units, count in found}


def test_threads_that_are_far_from_each_other_share_less() -> None:
    near, far = units_shared("50"), units_shared("600")
    assert all(near[key] for key in far if far[key])
    for name in ("forward", "backward"):
        assert any(near[name, units] and not far[name, units] for units in (16, 32, 64, 128))
        assert near[name, 512]
        assert far[name, 512]  # whose steps are long


SHORT_ROWS = """
import numpy as np, fusedrnn as fr
fr.set_num_threads(2)
fr.RNN(64, 64).freeze()(np.zeros((1000, 4, 64), "float32"))
"""


def test_sequences_whose_rows_share_pages_stay_on_one_of_two_far_threads() -> None:
    for latency, parts in (("60", "2"), ("300", "1")):
        done = run("plan", SHORT_ROWS, latency)
        assert done.returncode == 0, done.stderr
        found = re.findall(r" T=1000 B=4 .*: (\d) parts of the batch x 1 of", done.stderr)
        assert found == [parts]


def test_how_far_threads_are_is_measured() -> None:
    shared, near, far = units_shared(None), units_shared("0"), units_shared("1000")
    for key, value in shared.items():
        assert value in (near[key], far[key])


def test_a_core_latency_that_is_no_number_is_an_error() -> None:
    for text in ("near", "-1", "10ns", "nan", "1e9"):
        done = run(None, STEPS, text)
        assert done.returncode != 0
        said = f"expected nanoseconds from 0 to 1000000, got '{text}'"
        assert f"FUSEDRNN_CORE_LATENCY_NS: {said}" in done.stderr


def test_another_value_is_an_error() -> None:
    done = run("plans")
    assert done.returncode != 0
    assert "FUSEDRNN_LOG: expected plan or nothing, got 'plans'" in done.stderr


STACK = """
import numpy as np, fusedrnn as fr
fr.set_num_threads({threads})
layer = fr.GRU(96, 96, num_layers={layers}, bidirectional={bidirectional}, seed=0)
y, state, tape = layer.forward(np.zeros((64, 2, 96), "float32"), {options})
layer.backward(tape, y)
"""


def lanes(**chosen: object) -> list[tuple[int, int]]:
    """By pass, how many runs at a time are side by side and the threads of each."""
    chosen = {"threads": 2, "layers": 2, "bidirectional": False, "options": ""} | chosen
    done = run("plan", STACK.format(**chosen))
    assert done.returncode == 0, done.stderr
    found = re.findall(r"side by side, (\d) at a time on (\d) threads each", done.stderr)
    return [(int(count), int(threads)) for count, threads in found]


def test_runs_side_by_side_are_printed() -> None:
    assert lanes() == [(2, 1)] * 2
    assert lanes(layers=1, bidirectional=True) == [(2, 1)] * 2
    assert lanes(layers=3, threads=3) == [(3, 1)] * 2
    assert lanes(layers=2, bidirectional=True) == [(2, 1)] * 4


HANDED_ON = """
import numpy as np, fusedrnn as fr
fr.set_num_threads(2)
for units in (8, 16, 32, 48, 64, 96, 128, 256):
    layer = fr.RNN(units, units, num_layers=2, seed=0)
    y, state, tape = layer.forward(np.zeros((64, 1, units), "float32"))
    layer.backward(tape, y)
"""


def layers_side_by_side(latency: str) -> set[tuple[str, int]]:
    """The passes whose two layers run at the same time."""
    done = run("plan", HANDED_ON, latency)
    assert done.returncode == 0, done.stderr
    together = r"(\w+) rnn_tanh .* H=(\d+), [^:]*: [^\n]*\n.*\nfusedrnn: these side by side"
    return {(name, int(units)) for name, units in re.findall(together, done.stderr)}


def test_layers_of_threads_that_are_far_hand_less_on() -> None:
    near, far = layers_side_by_side("50"), layers_side_by_side("600")
    assert far < near
    assert far


def test_runs_that_wait_for_each_other_or_have_no_threads_are_not() -> None:
    assert lanes(threads=1) == []
    assert lanes(layers=1) == []
