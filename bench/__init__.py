"""Benchmarks of fusedrnn against its peers: verify, then time. See bench/README.md."""
