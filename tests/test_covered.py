"""The share of each class's objects that some anchor covers, against boxes counted by hand, and the proposed
scale.
"""

import pytest
import torch
from conftest import annotate, make_voc
from flagged import flags
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator

from hbo.analysis import anchors
from hbo.config import resolve
from hbo.tasks.build import open_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs of 96 x 80 with small objects `a`, about a twelfth of a side, large ones `b`, half a side,
    and one difficult one.
    """
    root = make_voc(tmp_path_factory.mktemp("voc") / "set", train=8, test=2)
    for i, path in enumerate(sorted((root / "Annotations").iterdir())):
        x, y = 7 * i, 5 * i
        small, large = ("a", x + 1, y + 1, x + 8, y + 7), ("b", 11 + i, 9 + i, 58 + i, 48 + i)
        annotate(path, [small, large, *([("a", 1, 1, 90, 70, True)] if i == 0 else [])], (96, 80))
    return root


def overlap(one: list[float], other: list[float]) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return width * height / (area(one) + area(other) - width * height)


def run_of(folder, **kwargs):
    return resolve(data="vocfolder", data_dir=str(folder), batch=2, resolution=320, **kwargs)


def test_covered_shares_equal_those_counted_by_hand(folder):
    run = run_of(folder, anchors="torchvision")
    boxes, labels = anchors.objects(open_data(run).train, 320)
    assert labels.bincount().tolist() == [8, 8]  # the difficult one is not counted
    assert boxes[0].tolist() == pytest.approx([0, 0, 8 * 320 / 96, 7 * 4])
    sizes = [(n, n) for n in (20, 10, 5, 3, 2, 1)]
    assert anchors.map_sizes(run) == sizes
    for scale in (0.08, 0.2):
        unit = DefaultBoxGenerator([[2, 3]] * 6, scale, 0.95)._grid_default_boxes(
            [list(s) for s in sizes], [320, 320]
        )
        theirs = 320 * torch.cat([unit[:, :2] - unit[:, 2:] / 2, unit[:, :2] + unit[:, 2:] / 2], 1)
        best = [max(overlap(box, anchor) for anchor in theirs.tolist()) for box in boxes.tolist()]
        assert anchors.best_overlaps(run, boxes, sizes, scale).tolist() == pytest.approx(best, abs=1e-4)


def test_the_table_proposes_a_scale(folder, capsys):
    anchors.main(["--data_dir", str(folder), "--anchors", "torchvision"])
    out = capsys.readouterr().out.splitlines()
    (small,) = (line.split() for line in out if line.startswith("a "))
    assert small[1] == "8"
    assert (small[3], small[4]) == ("0", "%")  # none at 0.2
    assert int(small[5]) > 50
    assert out[-1].startswith("--min_scale 0.")
    assert "covers most" in out[-1]
    proposed = out[-1].split()[1]
    anchors.main(flags(data="vocfolder", data_dir=str(folder), anchors="torchvision", min_scale=proposed))
    assert capsys.readouterr().out.splitlines()[-1].startswith("no other min_scale covers more")


def test_the_present_scale_stays_unless_another_gains_a_point():
    share = lambda *values: torch.tensor(values)
    assert anchors.propose({0.1: share(0.9, 0.9), 0.2: share(0.9, 0.895)}, 0.2) == 0.2
    assert anchors.propose({0.1: share(0.9, 0.9), 0.2: share(0.9, 0.1)}, 0.2) == 0.1
    assert anchors.propose({0.1: share(0.9, float("nan")), 0.2: share(0.2, float("nan"))}, 0.2) == 0.1


def test_another_task_is_an_error(capsys):
    with pytest.raises(SystemExit):
        anchors.main(["--data", "digits"])
    assert "task" in capsys.readouterr().err
