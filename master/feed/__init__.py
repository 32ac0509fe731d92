"""The change feed: a node asks what has changed, and waits until something has."""
