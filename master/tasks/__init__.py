"""What the master does by itself: tasks, when they are due, and that each is done once."""
