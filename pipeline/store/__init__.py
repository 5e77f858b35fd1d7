"""What lies in a run's folder: files, metadata, progress, locks, and the index of files."""
