"""Benchmarks on a GPU against PyTorch and cuDNN: verify, then time. See bench/README.md."""
