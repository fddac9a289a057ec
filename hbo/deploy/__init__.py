"""The exported network: the same function in fewer, wider steps."""

from hbo.deploy.deployed import deploy

__all__ = ["deploy"]
