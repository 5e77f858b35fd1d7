"""Knows this machine: its cores, memory and GPUs, TensorFlow's start, signals and messages."""
