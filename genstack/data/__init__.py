"""Files, archives and built-in sets to batches of images and labels."""
