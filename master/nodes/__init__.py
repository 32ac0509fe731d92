"""Nodes: the machines, their partitions and addresses, and what they said last."""
