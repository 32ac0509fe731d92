"""Provisioning: instance trees, instances and shared instances, and where they are placed."""
