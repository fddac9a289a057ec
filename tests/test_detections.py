"""The boxes drawn over a photograph are those that the metric counts; and the mean of each class."""

import numpy as np
import pandas as pd
import torch
from PIL import Image

from hbo.analysis.detections import per_class
from hbo.tasks.detect.draw import COLOURS, grid, marks, one

WHOLE, HALF, FAR, NEAR = [0.0, 0, 10, 10], [0.0, 0, 10, 5], [50.0, 50, 60, 60], [50.0, 50, 60, 59]


def found(*boxes):
    parts = list(zip(*boxes, strict=True))
    return {
        "boxes": torch.tensor(parts[0]),
        "scores": torch.tensor(parts[1]),
        "labels": torch.tensor(parts[2]),
    }


def truth(*boxes):
    parts = list(zip(*boxes, strict=True))
    return {
        "boxes": torch.tensor(parts[0]),
        "labels": torch.tensor(parts[1]),
        "difficult": torch.tensor(parts[2]),
    }


def test_found_missed_false_and_difficult():
    there = truth((WHOLE, 0, False), (FAR, 1, False), (FAR, 0, True), (WHOLE, 1, False))
    seen = found((WHOLE, 0.9, 0), (HALF, 0.8, 0), (NEAR, 0.7, 0), (NEAR, 0.6, 1), (FAR, 0.3, 1))
    drawn = marks(seen, there, ["cell", "dust"])
    assert {(m.kind, m.text, tuple(m.box)) for m in drawn} == {
        ("found", "cell 0.90", tuple(WHOLE)),
        ("false", "cell 0.80", tuple(HALF)),  # a second one on the same object
        ("difficult", "cell", tuple(FAR)),  # its detection is not drawn
        ("found", "dust 0.60", tuple(NEAR)),  # the better one at 0.3 is below the score threshold
        ("missed", "dust", tuple(WHOLE)),
    }
    assert [m.kind for m in marks(seen, there, ["cell", "dust"], score=0.95)].count("missed") == 3


def test_boxes_are_drawn_at_their_place_in_their_colour():
    image = Image.new("RGB", (200, 100), (255, 255, 255))
    figure = one(image, found(([20.0, 10, 120, 60], 0.8, 0)), ["cell"], "photograph")
    (axes,) = figure.axes
    (rectangle,) = axes.patches
    assert (*rectangle.get_xy(), rectangle.get_width(), rectangle.get_height()) == (20, 10, 100, 50)
    assert [text.get_text() for text in axes.texts] == ["cell 0.80"]
    many = grid([image] * 5, [[]] * 5, list("abcde"))
    assert len(many.axes) == 5
    assert not many.legends
    assert len(set(COLOURS.values())) == 4


def test_the_mean_of_each_class():
    rows = pd.DataFrame(
        {"arm": ["x", "x", "y"], "ap_b": [0.5, 0.7, 0.1], "ap_a": [0.2, np.nan, 0.4], "ap_c": [np.nan] * 3}
    )
    frame = per_class(rows).frame
    assert frame.to_dict("records") == [
        {"arm": "x", "n": 2, "b": "60.0 ± 14.1", "a": "20.0"},
        {"arm": "y", "n": 1, "b": "10.0", "a": "40.0"},
    ]
