"""Backups: all that is in a master's database in one file, which any database takes back."""
