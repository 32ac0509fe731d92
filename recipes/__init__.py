"""Buildout recipes, one a file: `recipe = slapos:NAME`."""
