"""Carries out a run from preparation to record: Beam graph, launcher, attempts, merged shards."""
