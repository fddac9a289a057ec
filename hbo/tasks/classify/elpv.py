"""elpv: 2,624 electroluminescence photographs of solar cells, 300 x 300, grey (Deitsch
et al. 2019, CC BY-NC-SA 4.0).

Labels are the probability of a defect (0, 1/3, 2/3, 1), judged by experts; above 0.5 is "defective".
Published accuracy: 82.4 % with an SVM and 88.4 % with a pretrained VGG-19, each on a quarter of the cells,
not the same quarter as here.
"""

from pathlib import Path

import pandas as pd

from hbo.data.sampling import split
from hbo.errors import DataError

CLASSES = ["functional", "defective"]
REPORTED = 0.25  # validation share of each (label, cell type)


def load() -> tuple[list[str], tuple[list[int], list[int]], tuple[list[int], list[int]], list[str]]:
    """Paths of the images (300 x 300, grey); indices and labels for training; indices and labels for
    validation; class names.

    Raises:
        DataError: the package `elpv-dataset` is missing.
    """
    try:
        import elpv_dataset
    except ImportError:
        raise DataError("data=elpv: its package is not installed; pip install elpv-dataset") from None
    root = Path(str(elpv_dataset.__file__)).parent / "data"
    table = pd.read_csv(root / "labels.csv", sep=r"\s+", header=None, names=["path", "probability", "type"])
    labels = [int(p > 0.5) for p in table["probability"]]
    train, val = split(list(zip(labels, table["type"], strict=True)), REPORTED, salt="elpv")
    paths = [str(root / path) for path in table["path"]]
    return paths, (train, [labels[i] for i in train]), (val, [labels[i] for i in val]), CLASSES
