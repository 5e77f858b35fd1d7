"""Reads and writes what lies in a run's folder: files, metadata, progress, locks and an index."""
