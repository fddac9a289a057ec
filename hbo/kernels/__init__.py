"""Fast paths for training on a CPU: modules that fall back to PyTorch's own in every other case."""
