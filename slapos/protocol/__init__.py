"""What the master and a node say to each other: messages, states, errors, and how they travel."""
