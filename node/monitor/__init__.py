"""Monitoring: what partitions and the machine use: sampled, kept, shown, billed."""
