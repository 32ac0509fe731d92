"""The SLAP wire: adapters that read a request, call a room, and answer as clients expect."""
