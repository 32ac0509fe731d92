"""Promises that releases use as they are; options as slapos.toolbox's plugins of these names."""
