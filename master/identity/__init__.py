"""Who there is, who asks, and who may do what."""
