"""The runtimes that mobile networks are deployed in, one adapter per file (`for_NAME.py`), each an extra of
pyproject.toml.
"""

import importlib

from hbo.deploy.runtimes.base import Event, Facts, Files, Model, Pieces, Runtime, Session, Traced

RUNTIMES = ("onnx", "openvino", "ncnn", "litert", "executorch")

__all__ = [
    "RUNTIMES", "Event", "Facts", "Files", "Model", "Pieces", "Runtime", "Session", "Traced",
    "installed", "named",
]  # fmt: skip


def named(name: str) -> Runtime:
    """The adapter of a runtime, whether it is installed or not."""
    return importlib.import_module(f"hbo.deploy.runtimes.for_{name}").RUNTIME


def installed() -> list[Runtime]:
    """Those that can be used in this environment."""
    return [runtime for runtime in map(named, RUNTIMES) if runtime.installed()]
