"""The loss of a picture: Gram matrices, terms and their targets, computed whole or in tiles."""
