"""HBO: ablations of HBONet's harmonious bottleneck (ICCV 2019) in PyTorch Lightning."""

__version__ = "0.1.0"
