"""A run that is as good as one answer for every image."""

import numpy as np

from hbo.analysis import outliers
from hbo.runs import one_answer


def test_one_answer_is_not_beaten_by_rounding():
    """46 of digits' 449 images, in double against single precision; one more image is above."""
    row = {"majority": float(np.float32(46 / 449)), "class_weights": "none"}
    assert row["majority"] < 46 / 449
    told = [one_answer.against({**row, "top1": many / 449}) for many in (46, 47)]
    assert [one and one.beaten for one in told] == [False, True]
    assert one_answer.against({"map": 0.1}) is None
    row |= {"top1": 46 / 449, "balanced_accuracy": 0.1}
    assert outliers.one_class(row) == "as good as one class for every image"
    assert outliers.one_class({**row, "predicted_classes": 2}) == ""  # 446 and 3 images
    assert outliers.one_class({**row, "top1": 0.05, "predicted_classes": 1}).startswith("predicts one class")
