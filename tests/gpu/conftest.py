"""Every test here runs with each array library that there is, its functions on the device."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_libraries import Emulated, Library, StreamLibrary, installed

import fusedrnn
from support import running_on


@functools.cache
def libraries(emulated: bool) -> dict[str, Library]:
    found = [Emulated(Path(os.environ["FUSEDRNN_CUDA_LIBRARY"]))] if emulated else installed()
    return {library.name: library for library in found}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    known = libraries(metafunc.config.getoption("--cuda") == "emulator")
    if not known:
        why = fusedrnn.info()["cuda"]
        raise pytest.UsageError(f"no array library finds a GPU here; fusedrnn says: {why}")
    metafunc.parametrize("library", known.values(), ids=list(known), scope="session")


@pytest.fixture(scope="session")
def library(request: pytest.FixtureRequest) -> Library:
    found: Library = request.param
    return found


@pytest.fixture(autouse=True)
def _on_the_device(library: Library, request: pytest.FixtureRequest) -> Iterator[None]:
    """What `support` calls, it calls with arrays of the library."""
    params = request.node.callspec.params
    dtype = params["precision"].dtype if "precision" in params else params.get("dtype", "float32")
    if dtype not in library.dtypes:
        pytest.skip(f"{library.name} has no {dtype}")
    with running_on(library):
        yield
    gc.collect()


@pytest.fixture
def arrays_with_views(library: Library) -> None:
    if not isinstance(library, StreamLibrary):
        pytest.skip(f"{library.name} has no arrays that a layer can write parts of")
