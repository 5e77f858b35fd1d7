"""Plain values that all other rooms exchange: jobs, planned jobs, metadata rows and shards."""
