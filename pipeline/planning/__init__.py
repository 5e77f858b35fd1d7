"""Decides before any work what has to be made: sizes, hashes, batches, finished jobs, estimates."""
