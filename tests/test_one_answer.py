"""A run that is as good as one answer for every image."""

import numpy as np
import pandas as pd

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


def test_runs_with_one_answer_are_listed_together():
    """Each with its key would be 900 characters for 12 runs."""
    rows = [
        {"arm": f"k={k}", "seed": seed, "key": f"{k}{seed}", "top1": 0.1, "predicted_classes": 1}
        for k in (1, 2)
        for seed in (0, 1)
    ]
    said = lambda *more: outliers.sentence(pd.DataFrame([*rows, *more]), "top1")
    start, one = "Included, but check these runs:", "predicts one class for every image"
    assert said() == f"{start} all 4 runs: {one}."
    other = {"arm": "k=3", "seed": 0, "key": "30", "top1": 0.2, "predicted_classes": 4}
    assert said(other) == f"{start} 4 runs (k=1, seeds 0, 1; k=2, seeds 0, 1): {one}."
    del rows[1:]
    assert said(other) == f"{start} k=1, seed 0 (10): {one}."
