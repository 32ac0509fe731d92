"""What keeps a master from its work, and what to do about it."""
