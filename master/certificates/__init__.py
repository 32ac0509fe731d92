"""Certificates: our authorities, who is certified, how machines join, who shows what."""
