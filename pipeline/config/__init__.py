"""A run's settings: their model, where they are read from, how they are described."""
