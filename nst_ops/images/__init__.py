"""Pictures as files and as arrays: reading, writing, resampling, colours."""
