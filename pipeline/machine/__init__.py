"""This machine: cores, GPUs and memory, TensorFlow's start, signals."""
