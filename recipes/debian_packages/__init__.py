"""What `slapos:debian` is made of: asking apt, locking versions, making an unpacked tree work."""
