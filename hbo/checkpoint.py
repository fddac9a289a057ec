"""Load released weights into a network: `hbo.checkpoint.load_released(model, FILE)`. The rest is in
hbo/runs/checkpoint.py.
"""

from hbo.runs.checkpoint import load_released

__all__ = ["load_released"]
