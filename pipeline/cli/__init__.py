"""Implements the `nst` command: its arguments, what it does, and what people see of it."""
