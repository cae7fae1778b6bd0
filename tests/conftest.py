"""Settings of every test: Hypothesis repeats the same examples, and a run says what it ran on.

The tests in gpu/ run over the emulator (`pytest --cuda=emulator`) or on a GPU (`pytest -m gpu`);
otherwise they are not collected.
"""

from __future__ import annotations

import gc
import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
GPU_TESTS = Path(__file__).parent / "gpu"
REHEARSAL = GPU_TESTS / "test_gpu_rehearsal.py"  # over the emulator alone
EMULATOR_TESTS = Path(__file__).parent / "emulator"  # of the emulator alone: ctest runs them

hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.register_profile("emulator", deadline=None, derandomize=True, max_examples=6)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cuda",
        choices=["emulator"],
        help="run the GPU's tests, and these alone, over the emulator, which is built where needed",
    )
    parser.addoption(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="run one in N tests of each file: of what another run has as a whole",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Plans, and with them what tests of threads run, are those of CPUs that are near each other and
    # free, whatever this machine is.
    os.environ.setdefault("FUSEDRNN_CORE_LATENCY_NS", "50")
    config.addinivalue_line("markers", "gpu: runs on a GPU, or over the emulator")
    if config.getoption("--cuda") == "emulator":
        from emulated_library import find_or_build  # noqa: PLC0415

        # Before the package looks for a CUDA library, which it does once.
        os.environ["FUSEDRNN_CUDA_LIBRARY"] = str(find_or_build())
        hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "emulator"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    without = [EMULATOR_TESTS] if runs_on_device(config) else [EMULATOR_TESTS, GPU_TESTS]
    if config.getoption("--cuda") is None:
        without.append(REHEARSAL)
    return True if collection_path in without else None


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if GPU_TESTS in item.path.parents:
            item.add_marker(pytest.mark.gpu)
    on_emulator = config.getoption("--cuda") is not None
    seen: Counter[Path] = Counter()
    chosen, others = [], []
    for item in items:
        wanted = not on_emulator or item.get_closest_marker("gpu") is not None
        if wanted:
            wanted = seen[item.path] % config.getoption("--every") == 0
            seen[item.path] += 1
        (chosen if wanted else others).append(item)
    items[:] = chosen
    config.hook.pytest_deselected(items=others)


def pytest_collection_finish() -> None:
    """Tests collect garbage hundreds of times: spares them all that imports have made."""
    gc.collect()
    gc.freeze()


def runs_on_device(config: pytest.Config) -> bool:
    return config.getoption("--cuda") is not None or config.getoption("-m") == "gpu"


@pytest.fixture
def keeps_threads() -> Iterator[None]:
    """The number of threads is afterwards what it was before."""
    import fusedrnn  # noqa: PLC0415

    before = fusedrnn.get_num_threads()
    yield
    fusedrnn.set_num_threads(before)


@pytest.fixture
def one_thread(keeps_threads: None) -> None:
    """A single thread, for trainings whose arrays are too small to be shared."""
    import fusedrnn  # noqa: PLC0415

    fusedrnn.set_num_threads(1)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A program by its path in examples/, as a module; it finds what lies beside it."""

    def load(name: str) -> Any:
        folder, _, module = name.partition("/")
        monkeypatch.syspath_prepend(str(EXAMPLES / folder))
        return importlib.import_module(module)

    return load


def pytest_report_header() -> list[str]:
    import fusedrnn  # noqa: PLC0415

    known = fusedrnn.info()
    header = [f"fusedrnn {known['version']}: isa {known['isa']}, threads {known['threads']}"]
    return header + [f"cuda: {device}" for device in known["cuda_devices"]]
