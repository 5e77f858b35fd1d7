"""Networks that paint a photo in one pass: their layers, their files, and how they are run."""
