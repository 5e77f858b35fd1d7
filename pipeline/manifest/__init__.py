"""Manifests are made, read and checked here, and handed to the workers in parts."""
