"""A CUDA library that computes nothing, and arrays on its devices.

`test_cuda_host.py` builds the library from `plugin.cpp` and runs `inside.py` in a process of its
own, because a library that has been opened stays.
"""
