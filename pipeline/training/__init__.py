"""What `nst train` does around the trainer: its files, its folder, its way to the end."""
