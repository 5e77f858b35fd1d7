"""What will be done, before anything is: sizes, hashes, batches, what is done, estimates."""
