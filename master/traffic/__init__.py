"""What surrounds every request: its id, limits, logs, metrics and the headers of its answer."""
