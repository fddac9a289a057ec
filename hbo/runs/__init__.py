"""A run on disk and in its process: rows, checkpoints, callbacks, the lock, signals, W&B."""
