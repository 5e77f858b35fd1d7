"""Manifests: made, read, checked and handed to workers in parts."""
