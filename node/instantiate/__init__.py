"""Bringing partitions to what the master wants: steps, one a file, in the order of `process.py`."""
