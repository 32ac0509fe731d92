"""Building software releases: one folder each, made by buildout as the software user."""
