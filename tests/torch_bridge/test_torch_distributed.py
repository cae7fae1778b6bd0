"""More than one process, under torchrun and gloo: what one process makes of the whole batch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import distributed_worker
import pytest
import torch

from examples.distributed import train as example

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# Without the second, workers that start again may find the addresses of those before.
SETTINGS = {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
EXAMPLE = Path(example.__file__)


def torchrun(*arguments: str | Path) -> str:
    command = [*TORCHRUN, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env=os.environ | SETTINGS
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process has."""
    folder = tmp_path_factory.mktemp("processes")
    torchrun(distributed_worker.__file__, folder)
    return [torch.load(folder / name) for name in "01"]


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_two_processes_are_one_with_the_whole_batch(of_two: list[dict[str, Any]], way: str) -> None:
    expected = distributed_worker.train("alone", 0, 1)
    for got in of_two:
        torch.testing.assert_close(got[way], expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got[way], of_two[0][way], rtol=0, atol=0)


KILLED = """
import os, runpy, signal, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
steps = []
def end_once(optimizer, arguments, words):
    steps.append(None)
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and os.environ["RANK"] == "1" and len(steps) == 13:
        os.kill(os.getpid(), signal.SIGKILL)
register_optimizer_step_post_hook(end_once)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_training_survives_a_killed_worker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--steps", "20", "--every", "5", "--batch", "8", "--length", "16", "--hidden", "24"]
    expected = example.main([*small, "--checkpoint", str(tmp_path / "alone")])
    capsys.readouterr()
    script = tmp_path / "killed.py"
    script.write_text(KILLED, encoding="utf-8")
    checkpoint = tmp_path / "two"
    said = torchrun("--max-restarts", "1", script, EXAMPLE, *small, "--checkpoint", checkpoint)
    for rank in range(2):
        for first in (0, 10):
            assert f"process {rank} of 2: from step {first}\n" in said
    (bits,) = re.findall(r"(\S+) bits a character", said)
    assert float(bits) == pytest.approx(expected, abs=1e-4)
    alone, two = (torch.load(tmp_path / name)["model"] for name in ("alone", "two"))
    torch.testing.assert_close(two, alone, rtol=1e-4, atol=1e-5)


def test_a_batch_that_cannot_be_shared() -> None:
    options = example.argparse.Namespace(batch=9)
    with pytest.raises(SystemExit, match=r"--batch: expected a multiple of the 2 processes, got 9"):
        example.train(options, 0, 2)
