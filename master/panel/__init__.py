"""The web user interface: pages that need no script, and call what the rooms can do."""
