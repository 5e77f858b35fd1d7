"""What moves a batch of pictures towards a lower loss: L-BFGS and Adam."""
