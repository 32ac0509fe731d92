"""Webhooks: what changes in a project is told to an address of its people, signed."""
