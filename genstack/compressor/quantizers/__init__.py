"""Latents to codes: one file per algorithm."""
