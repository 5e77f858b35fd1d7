"""What a picture is scored by: Gram matrices, loss terms, their targets, whole or in tiles."""
