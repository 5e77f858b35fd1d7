"""Makes pictures in worker processes, batch by batch."""
