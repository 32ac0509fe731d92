"""Benchmarks: ratios against a peer or the bare limit, measured in one run. Not tests."""
