"""elpv: 2,624 electroluminescence photographs of solar cells, 300 x 300, grey (Deitsch et al. 2019, CC BY-NC-SA 4.0).

Labels are a defect's probability (0, 1/3, 2/3, 1) by an expert's eye; above 0.5 is "defective". Published: accuracy
82.4 % by an SVM and 88.4 % by a pretrained VGG-19, each on a fourth of the cells, not the same fourth as here.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from hbo.data.sampling import split
from hbo.errors import DataError

CLASSES = ["functional", "defective"]
REPORTED = 0.25  # of each (label, cell type)


def load() -> tuple[tuple[Tensor, list[int]], tuple[Tensor, list[int]], list[str]]:
    """(training images (N, 1, 300, 300) uint8, labels), (reported images, labels), class names; the split is fixed.

    Raises:
        DataError: the package `elpv-dataset` is missing.
    """
    try:
        import elpv_dataset
    except ImportError:
        raise DataError("data=elpv: its package is not installed; pip install elpv-dataset") from None
    root = Path(str(elpv_dataset.__file__)).parent / "data"
    table = pd.read_csv(root / "labels.csv", sep=r"\s+", header=None, names=["path", "probability", "type"])
    with ThreadPoolExecutor(4) as pool:  # decoding leaves Python's lock
        images = torch.stack(list(pool.map(lambda path: pil_to_tensor(Image.open(root / path)), table["path"])))
    labels = [int(p > 0.5) for p in table["probability"]]
    train, val = split(list(zip(labels, table["type"], strict=True)), REPORTED, salt="elpv")
    return (images[train], [labels[i] for i in train]), (images[val], [labels[i] for i in val]), CLASSES
