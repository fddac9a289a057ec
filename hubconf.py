"""torch.hub.load(REPO, "hbonet", k=2, width=0.25): networks with fresh or trained weights, REPO a checkout
with source="local".

Weights are a file: a run's folder or last.ckpt, a .safetensors of `hbo.export`, or a .pth of the authors'
release.
"""

import functools as _functools

from hbo import hub as _hub

dependencies = [
    "torch",
    "torchvision",
    "pytorch_lightning",
    "torchmetrics",
    "einops",
    "jaxtyping",
    "jsonargparse",
    "numpy",
    "PIL",
    "safetensors",
    "tqdm",
    "yaml",
]
hbonet = _functools.partial(_hub.network, "hbonet")
hbonet.__doc__ = "HBONet, any switch of its block; see `hbo.build`."
hbonet_ir = _functools.partial(_hub.network, "hbonet_ir")
hbonet_ir.__doc__ = "Table 1's widths with inverted residuals."
mobilenetv2 = _functools.partial(_hub.network, "mobilenetv2")
mobilenetv2.__doc__ = "MobileNetV2."
mobilenetv2_hbo = _functools.partial(_hub.network, "mobilenetv2_hbo")
mobilenetv2_hbo.__doc__ = "MobileNetV2's table with harmonious bottlenecks."
