"""Preparing a machine: users, directories and addresses of its partitions."""
