"""What everybody speaks of: jobs and shards, plain values."""
