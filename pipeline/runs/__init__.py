"""A run from its beginning to its record: the Beam graph, the launcher, attempts, merged shards."""
