"""Promises: small checks that a release ships, run in a partition to tell whether it is healthy."""
