"""Supervision: supervisord runs the services of the partitions, one group a partition."""
