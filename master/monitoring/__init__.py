"""Whether nodes and instances do what they should, and since when."""
