"""Training of networks that paint in one pass: samples, losses, the loop and its checkpoints."""
