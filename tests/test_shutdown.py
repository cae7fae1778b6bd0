"""The end of Python while others hold what is ours.

Tensors lent through DLPack come back on threads that know nothing of Python, before, during and
after its end.

Each end is that of a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
INCLUDE = TESTS.parent / "csrc" / "include"

# Lends 20 tensors to the consumer, whose arrays say when they are freed. Nobody takes the GIL from
# a thread that runs Python's code, so that the end comes while others wait for it.
LEND = """
import ctypes, os, sys, threading
import numpy as np
from fusedrnn import _core

class Array(np.ndarray):
    def __del__(self):
        print("freed", flush=True)

consumer = ctypes.PyDLL(sys.argv[1])
address_of = ctypes.pythonapi.PyCapsule_GetPointer
address_of.restype = ctypes.c_void_p
address_of.argtypes = [ctypes.py_object, ctypes.c_char_p]
rename = ctypes.pythonapi.PyCapsule_SetName
rename.argtypes = [ctypes.py_object, ctypes.c_char_p]
used = ctypes.c_char_p(b"used_dltensor")

def lend():
    capsule = _core.LentArray(np.zeros(4, "float32").view(Array)).__dlpack__()
    consumer.take(ctypes.c_void_p(address_of(capsule, b"dltensor")))
    rename(capsule, used)

for _ in range(20):
    lend()
sys.setswitchinterval(1)
"""


@pytest.fixture(scope="module")
def consumer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("consumer") / "libconsumer.so"
    options = ["-std=c++20", "-shared", "-fPIC", "-pthread", f"-I{INCLUDE}"]
    source = TESTS / "shutdown" / "consumer.cpp"
    subprocess.run([os.environ.get("CXX", "c++"), *options, source, "-o", path], check=True)
    return path


def lines(consumer: Path, script: str, before: str = "") -> list[str]:
    """What a script prints; it must come to its end, and complain of nothing."""
    done = subprocess.run(
        [sys.executable, "-c", before + LEND + script, consumer],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_given_back_before_the_end(consumer: Path) -> None:
    script = "ctypes.CDLL(sys.argv[1]).give_back_and_wait(); print('end')"  # without the GIL
    assert lines(consumer, script) == ["freed"] * 20 + ["gave back 20", "end"]


def test_given_back_while_python_ends(consumer: Path) -> None:
    """One is waiting for the GIL, and gets it; those that come too late for it are left."""
    *freed, last = lines(consumer, "consumer.start_to_give_back()")
    assert last == "gave back 20"
    assert set(freed) == {"freed"}


def test_given_back_by_the_last_functions_of_python(consumer: Path) -> None:
    # They run in the opposite order of their registration: this one after ours.
    before = "import atexit; atexit.register(lambda: consumer.give_back_and_wait())\n"
    assert lines(consumer, "", before) == ["gave back 20"]


def test_given_back_while_modules_are_cleared(consumer: Path) -> None:
    # One of its own, since what the tensors' class refers to is kept as they are.
    script = (
        "import types\n"
        "class Last:\n"
        "    def __init__(self): self.give_back = consumer.give_back_and_wait\n"
        "    def __del__(self): self.give_back()\n"
        "sys.modules['late'] = types.ModuleType('late')\n"
        "sys.modules['late'].last = Last()\n"
    )
    assert lines(consumer, script) == ["gave back 20"]


def test_given_back_after_the_end(consumer: Path) -> None:
    assert lines(consumer, "consumer.give_back_at_exit()") == ["gave back 20"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_a_tensor_is_given_back(consumer: Path) -> None:
    """The child has not got the thread that gives it back, and does not wait for it."""
    script = """
import signal, warnings
warnings.simplefilter("ignore", DeprecationWarning)
reached, go_on = threading.Event(), threading.Event()
def wait(self):
    reached.set()
    go_on.wait()
Array.__del__ = wait
ctypes.CDLL(sys.argv[1]).start_to_give_back()
reached.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    sys.exit()
print(os.waitpid(child, 0)[1], flush=True)
go_on.set()
"""
    assert lines(consumer, script) == ["0", "gave back 20"]
