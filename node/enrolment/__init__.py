"""How this machine and its instances prove who they are: joining a master, and certificates."""
