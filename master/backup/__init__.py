"""Backups: all that is in a master's database, in one file, that any of its databases takes back."""
