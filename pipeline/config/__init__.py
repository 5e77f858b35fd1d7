"""Models, reads and describes the settings of a run."""
