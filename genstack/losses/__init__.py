"""How stage one is judged: reconstruction, perceptual distance, adversary."""
