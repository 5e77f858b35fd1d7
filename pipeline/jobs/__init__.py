"""Defines the plain values that all rooms exchange: jobs, planned jobs, rows and shards."""
