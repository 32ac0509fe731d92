"""`slapos node doctor`: whether this node can do its work, and what to do where it cannot."""
