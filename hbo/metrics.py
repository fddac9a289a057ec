"""The public metrics, as torchmetrics classes, which synchronise over
processes. All are fractions in [0, 1].
"""

from hbo.tasks.classify.metrics import Outcomes, classification
from hbo.tasks.detect.metrics import Detections, by_image, detection
from hbo.tasks.detect.voc_map import VOCMeanAveragePrecision
from hbo.tasks.reid.metrics import CMCMeanAveragePrecision, Rankings, cmc_map

__all__ = [
    "CMCMeanAveragePrecision", "Detections", "Outcomes", "Rankings", "VOCMeanAveragePrecision", "by_image",
    "classification",
    "cmc_map", "detection",
]  # fmt: skip
