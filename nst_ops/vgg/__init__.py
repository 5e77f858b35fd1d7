"""VGG19: its weights, its features and how they lie on the image, its precision."""
