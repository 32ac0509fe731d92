"""The command line: `main.py` finds a command, each command is a module of its own."""
