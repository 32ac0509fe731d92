"""The audit log: who has changed what and when. It is only ever added to."""
