"""The quick paths of training on a CPU: modules that step aside wherever PyTorch's own would have acted."""
