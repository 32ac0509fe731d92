"""The master: who ordered what, where it runs and what is known of it."""
