"""Stage two: distributions over codes, and drawing from them."""
