"""Load released weights into a network: `hbo.checkpoint.load_released(model, FILE)`. The rest is in
hbo/runs/weights.py.
"""

from hbo.runs.weights import load_released

__all__ = ["load_released"]
