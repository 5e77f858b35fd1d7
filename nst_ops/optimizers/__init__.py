"""The optimizers, L-BFGS and Adam, which move a batch of pictures towards a lower loss."""
