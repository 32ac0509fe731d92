"""The master: who ordered what, where it runs and how it does."""
