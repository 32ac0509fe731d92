"""Reporting usage to the master, and removing what was destroyed."""
