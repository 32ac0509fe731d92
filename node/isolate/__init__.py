"""Isolation: what each partition may use of the machine, and who may reach it."""
