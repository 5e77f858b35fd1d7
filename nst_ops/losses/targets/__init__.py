"""What pictures are optimized towards: features of photos, statistics and features of paintings."""
