"""Lightning callbacks: checkpoints, metrics, pictures, progress."""
