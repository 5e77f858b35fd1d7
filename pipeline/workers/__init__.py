"""Where pictures are made: in worker processes, batch by batch."""
