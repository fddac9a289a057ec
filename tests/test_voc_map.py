"""VOC's mean average precision: hand-computed cases, a brute-force oracle on random boxes, two real
processes.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor

from hbo.errors import UserError
from hbo.metrics import VOCMeanAveragePrecision

HALF = [0.0, 0.0, 10.0, 5.0]  # its overlap with the whole is exactly 1/2
WHOLE = [0.0, 0.0, 10.0, 10.0]
FAR = [50.0, 50.0, 60.0, 60.0]


def found(*boxes: tuple[list[float], float, int]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor([box for box, _, _ in boxes]).reshape(-1, 4),
        "scores": torch.tensor([score for _, score, _ in boxes]),
        "labels": torch.tensor([label for _, _, label in boxes], dtype=torch.long),
    }


def truth(*boxes: tuple[list[float], int, bool]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor([box for box, _, _ in boxes]).reshape(-1, 4),
        "labels": torch.tensor([label for _, label, _ in boxes], dtype=torch.long),
        "difficult": torch.tensor([hard for _, _, hard in boxes], dtype=torch.bool),
    }


def judge(
    preds, target, num_classes: int = 1, interpolation: str = "11point", threshold: float = 0.5
) -> dict[str, Tensor]:
    metric = VOCMeanAveragePrecision(num_classes, interpolation, threshold)
    metric.update(preds, target)
    return metric.compute()


def at(row: int, column: int) -> list[float]:
    """One of many boxes that do not touch."""
    return [100.0 * column, 100.0 * row, 100.0 * column + 10, 100.0 * row + 10]


# Each: detections, ground truth, 11-point, area; computed by hand with one class.
CASES = {
    "found, and nothing else": ([(WHOLE, 0.9, 0)], [(WHOLE, 0, False)], 1.0, 1.0),
    "missed": ([], [(WHOLE, 0, False)], 0.0, 0.0),
    "elsewhere": ([(FAR, 0.9, 0)], [(WHOLE, 0, False)], 0.0, 0.0),
    "an overlap of exactly the threshold counts": ([(HALF, 0.9, 0)], [(WHOLE, 0, False)], 1.0, 1.0),
    "one less does not": ([([0, 0, 10, 4.999], 0.9, 0)], [(WHOLE, 0, False)], 0.0, 0.0),
    "continuous coordinates: with a pixel added, 121 of 231 would count": (
        [([0, 0, 10, 20.0], 0.9, 0)], [([0, 0, 10, 9.99], 0, False)], 0.0, 0.0,
    ),
    # The second is false: recall 1 at precision 1, then at 1/2.
    "found twice": ([(WHOLE, 0.9, 0), (WHOLE, 0.8, 0)], [(WHOLE, 0, False)], 1.0, 1.0),
    # A false one first: recall 0 at precision 0, then recall 1 at 1/2.
    "a false one that is likelier": ([(WHOLE, 0.8, 0), (FAR, 0.9, 0)], [(WHOLE, 0, False)], 0.5, 0.5),
    "equal scores keep their order": ([(FAR, 0.9, 0), (WHOLE, 0.9, 0)], [(WHOLE, 0, False)], 0.5, 0.5),
    "and the other way round": ([(WHOLE, 0.9, 0), (FAR, 0.9, 0)], [(WHOLE, 0, False)], 1.0, 1.0),
    # 6 levels (0 to 0.5) at precision 1.
    "one of two": ([(WHOLE, 0.9, 0)], [(WHOLE, 0, False), (FAR, 0, False)], 6 / 11, 0.5),
    # The likelier one overlaps the first object by half and takes it; the exact one overlaps that object
    # most, so it is a duplicate.
    "each goes to what it overlaps most, taken or not": (
        [(HALF, 0.9, 0), (WHOLE, 0.8, 0)], [(WHOLE, 0, False), ([0, 8.0, 10, 18], 0, False)], 6 / 11, 0.5,
    ),
    "a difficult one is ignored": ([(WHOLE, 0.9, 0), (FAR, 0.8, 0)], [(WHOLE, 0, True), (FAR, 0, False)], 1.0, 1.0),
    "and again": (
        [(WHOLE, 0.9, 0), (WHOLE, 0.9, 0), (FAR, 0.8, 0)], [(WHOLE, 0, True), (FAR, 0, False)], 1.0, 1.0,
    ),
    "a difficult one that is missed costs nothing": ([(FAR, 0.8, 0)], [(WHOLE, 0, True), (FAR, 0, False)], 1.0, 1.0),
    # Two of three, at precisions 1 and 2/3: levels 0 to 0.3 at 1, up to 0.6 at 2/3.
    "interpolated": (
        [(at(0, 0), 0.9, 0), (FAR, 0.8, 0), (at(0, 1), 0.7, 0)],
        [(at(0, i), 0, False) for i in range(3)],
        (4 * 1 + 3 * 2 / 3) / 11, 1 / 3 + 2 / 9,
    ),
    # A recall of 3/10 reaches level 0.3, though 3 * 0.1 and 0.3 differ in the last bit.
    "three of ten reach 0.3": (
        [(at(0, i), 0.9, 0) for i in range(3)], [(at(0, i), 0, False) for i in range(10)], 4 / 11, 0.3,
    ),
    "seven of ten reach 0.7": (
        [(at(0, i), 0.9, 0) for i in range(7)], [(at(0, i), 0, False) for i in range(10)], 8 / 11, 0.7,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_cases_worked_by_hand(case):
    preds, target, points, area = CASES[case]
    for interpolation, expected in (("11point", points), ("area", area)):
        out = judge([found(*preds)], [truth(*target)], interpolation=interpolation)
        assert float(out["map"]) == pytest.approx(expected, abs=1e-12), interpolation
        assert out["per_class"].tolist() == pytest.approx([expected], abs=1e-12)


def test_a_recall_of_whole_tenths_reaches_its_level():
    """If n of N boxes are found without a false one, the levels up to n / N count, in exact arithmetic."""
    for total in (10, 20, 30, 70, 110):
        for n in range(total + 1):
            out = judge(
                [found(*((at(0, i), 0.5, 0) for i in range(n)))],
                [truth(*((at(0, i), 0, False) for i in range(total)))],
            )
            reached = sum(Fraction(t, 10) <= Fraction(n, total) for t in range(11)) if n else 0
            assert float(out["map"]) == pytest.approx(reached / 11, abs=1e-12), (n, total)


def reference_ap(hits: list[bool], positives: int) -> float:
    """`voc_ap(use_07_metric=True)` of py-faster-rcnn and its descendants, line by line."""
    tp, fp = np.cumsum(hits), np.cumsum(~np.array(hits))
    rec = tp / float(positives)
    prec = tp / np.maximum(tp + fp, np.finfo(np.float64).eps)
    ap = 0.0
    for t in np.arange(0.0, 1.1, 0.1):
        p = 0 if np.sum(rec >= t) == 0 else np.max(prec[rec >= t])
        ap = ap + p / 11.0
    return ap


def test_recall_levels_are_those_of_the_common_code():
    """Every result possible with 10 objects, and random lists; at a recall of exactly 0.3, 0.6 or 0.7 the
    definition gives more.
    """
    draw, differ = np.random.RandomState(0), set()
    for total in (10, 20, 7):
        for n in range(1, total + 1):
            hits = [True] * n + [False] * int(draw.randint(5))
            if n % 2:
                draw.shuffle(hits)
            preds = [found(*((at(0, i) if hit else FAR, 1 - i / 100, 0) for i, hit in enumerate(hits)))]
            target = [
                truth(
                    *((at(0, i), 0, False) for i, hit in enumerate(hits) if hit),
                    *((at(9, i), 0, False) for i in range(total - n)),
                )
            ]
            value = {}
            for levels in ("exact", "numpy"):
                metric = VOCMeanAveragePrecision(1, levels=levels)
                metric.update(preds, target)
                value[levels] = float(metric.compute()["map"])
            assert value["numpy"] == pytest.approx(reference_ap(hits, total), abs=1e-12)
            assert value["exact"] >= value["numpy"] - 1e-12
            if value["exact"] > value["numpy"] + 1e-12:
                differ.add(Fraction(n, total))
    assert {Fraction(3, 10), Fraction(6, 10), Fraction(7, 10)} <= differ


def test_a_class_without_ground_truth_is_not_averaged():
    preds = [found((WHOLE, 0.9, 0), (FAR, 0.9, 1), (FAR, 0.9, 2))]
    target = [truth((WHOLE, 0, False), (FAR, 1, True))]
    out = judge(preds, target, num_classes=4)
    assert float(out["map"]) == 1.0
    assert [math.isnan(v) for v in out["per_class"].tolist()] == [False, True, True, True]
    assert math.isnan(judge([found()], [truth()], num_classes=2)["map"])


def test_classes_and_images_do_not_mix():
    """A box with another class, or at the same place in another image, matches nothing."""
    preds = [found((WHOLE, 0.9, 1)), found((WHOLE, 0.8, 0))]
    target = [truth((WHOLE, 0, False)), truth((WHOLE, 1, False))]
    assert judge(preds, target, num_classes=2)["per_class"].tolist() == [0.0, 0.0]
    swapped = judge(preds, target[::-1], num_classes=2)
    assert swapped["per_class"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("preds", "target", "word"), [
    ([found()], [], "1 and 0 images"),
    ([found((WHOLE, 0.9, 2))], [truth()], "label 2; must be from 0 to 1"),
    ([found()], [truth((WHOLE, -1, False))], "label -1"),
    ([found((WHOLE, 0.9, 0)) | {"scores": torch.zeros(2)}], [truth()], "the same length"),
    ([found((WHOLE, math.nan, 0), (FAR, 0.5, 0))], [truth((WHOLE, 0, False))], "preds: a score is not a number"),
    ([found(([0.0, 0.0, math.nan, 5.0], 0.9, 0), (WHOLE, 0.5, 0))], [truth((WHOLE, 0, False))], r"preds: box .*nan.* not a finite"),
    ([found()], [truth(([0.0, 0.0, math.inf, 5.0], 0, False))], r"target: box .*inf.* not a finite"),
    ([found(([10.0, 0.0, 0.0, 10.0], 0.9, 0))], [truth()], r"preds: box \[10.0, 0.0, 0.0, 10.0\] has swapped corners"),
    ([found()], [truth(([0.0, 9.0, 5.0, 3.0], 0, True))], "target: box .* swapped"),
    ([found((WHOLE, 0.9, 0)) | {"labels": torch.tensor([0.5])}], [truth()], "preds: label 0.5; must be a whole number"),
    ([found()], [truth((WHOLE, 0, False)) | {"labels": torch.tensor([math.nan])}], "target: label nan"),
])  # fmt: skip
def test_inputs_that_do_not_fit_are_errors(preds, target, word):
    with pytest.raises(UserError, match=word):
        judge(preds, target, num_classes=2)


def test_unusual_valid_inputs_are_accepted():
    """Boxes without area, integer labels stored as floats, an infinite score."""
    point = [5.0, 5.0, 5.0, 5.0]
    preds = found((WHOLE, math.inf, 0), (point, 0.9, 0)) | {"labels": torch.tensor([0.0, 0.0])}
    assert float(judge([preds], [truth((WHOLE, 0, False))])["map"]) == 1.0


@pytest.mark.parametrize("kwargs", [
    {"interpolation": "12point"}, {"iou_threshold": 0}, {"iou_threshold": math.nan}, {"num_classes": 0},
    {"num_classes": math.nan},
    {"num_classes": 2.5}, {"levels": "matlab"},
])  # fmt: skip
def test_arguments_out_of_range_are_errors(kwargs):
    with pytest.raises(UserError, match=next(iter(kwargs))):
        VOCMeanAveragePrecision(**{"num_classes": 2, **kwargs})


# ------------------------------------------------------------ against brute force


def brute_force(preds, target, num_classes: int, interpolation: str, threshold: float) -> list[float | None]:
    """The devkit's loop in plain Python, with exact fractions: one detection at a time over all images."""
    averages: list[float | None] = []
    for c in range(num_classes):
        boxes = [
            [(list(map(Fraction, b)), hard) for b, label, hard in zip(*(t[k].tolist() for k in ("boxes", "labels", "difficult")), strict=True) if label == c]
            for t in target
        ]  # fmt: skip
        positives = sum(not hard for image in boxes for _, hard in image)
        detections = []
        for image, p in enumerate(preds):
            for box, score, label in zip(
                p["boxes"].tolist(), p["scores"].tolist(), p["labels"].tolist(), strict=True
            ):
                if label == c:
                    detections.append((score, image, list(map(Fraction, box))))
        detections.sort(key=lambda d: -d[0])  # stable
        taken, points, true, false = set(), [], 0, 0
        for _, image, (x1, y1, x2, y2) in detections:
            best, which = Fraction(-1), None
            for place, ((u1, v1, u2, v2), _) in enumerate(boxes[image]):
                wide, high = min(x2, u2) - max(x1, u1), min(y2, v2) - max(y1, v1)
                both = wide * high if wide > 0 and high > 0 else Fraction(0)
                overlap = both / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - both)
                if overlap > best:
                    best, which = overlap, place
            if which is not None and best >= Fraction(threshold):
                if boxes[image][which][1]:
                    continue
                if (image, which) in taken:
                    false += 1
                else:
                    taken.add((image, which))
                    true += 1
            else:
                false += 1
            points.append(
                (Fraction(true, positives) if positives else Fraction(0), Fraction(true, true + false))
            )
        if not positives:
            averages.append(None)
        elif interpolation == "11point":
            levels = [
                max((p for r, p in points if r >= Fraction(t, 10)), default=Fraction(0)) for t in range(11)
            ]
            averages.append(float(sum(levels) / 11))
        else:
            area, before = Fraction(0), Fraction(0)
            for i, (recall, _) in enumerate(points):
                area += (recall - before) * max(p for _, p in points[i:])
                before = recall
            averages.append(float(area))
    return averages


def random_set(
    seed: int, images: int = 6, classes: int = 3
) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Integer boxes on a small canvas, so that overlaps meet the threshold exactly; tied scores; some
    difficult objects.
    """
    draw = torch.Generator().manual_seed(seed)
    rand = lambda low, high, *shape: torch.randint(low, high, shape, generator=draw)

    def boxes(n: int) -> Tensor:
        corner = rand(0, 5, n, 2)
        return torch.cat([corner, corner + rand(1, 5, n, 2)], 1).float()

    preds, target = [], []
    for _ in range(images):
        d, g = int(rand(0, 12, 1)), int(rand(0, 6, 1))
        scores = rand(1, 8, d) / 8 if seed % 2 else torch.rand(d, generator=draw)
        preds.append({"boxes": boxes(d), "scores": scores, "labels": rand(0, classes, d)})
        hard = torch.rand(g, generator=draw) < 0.3
        target.append({"boxes": boxes(g), "labels": rand(0, classes - seed % 3 // 2, g), "difficult": hard})
    return preds, target


@pytest.mark.parametrize("interpolation", ["11point", "area"])
def test_against_brute_force_on_random_boxes(interpolation):
    exact = 0
    for seed in range(60):
        threshold = (0.5, 0.25, 0.75)[seed % 3]
        preds, target = random_set(seed)
        metric = VOCMeanAveragePrecision(3, interpolation, threshold)
        for start in range(0, 6, 4):  # in two batches
            metric.update(preds[start : start + 4], target[start : start + 4])
        out = metric.compute()
        expected = brute_force(preds, target, 3, interpolation, threshold)
        ours = [None if math.isnan(v) else v for v in out["per_class"].tolist()]
        assert ours == pytest.approx(expected, abs=1e-12), seed
        countable = [v for v in expected if v is not None]
        assert float(out["map"]) == pytest.approx(sum(countable) / len(countable), abs=1e-12)
        from torchvision.ops import box_iou

        exact += sum(
            int((box_iou(p["boxes"], t["boxes"]) == threshold).sum())
            for p, t in zip(preds, target, strict=True)
        )
    assert exact > 50  # the threshold was often met exactly


def test_reset_clears_the_state():
    preds, target = random_set(1)
    metric = VOCMeanAveragePrecision(3)
    metric.update(preds, target)
    once = metric.compute()
    metric.reset()
    metric.update(preds, target)
    assert torch.equal(metric.compute()["per_class"], once["per_class"])


# ------------------------------------------------------------ two processes


def _part(rank: int, port: int, given: list[int], out: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    preds, target = random_set(0)
    mine = given if rank == 0 else [i for i in range(len(preds)) if i not in given]
    metric = VOCMeanAveragePrecision(3)
    if mine:
        metric.update([preds[i] for i in mine], [target[i] for i in mine])
    torch.save(metric.compute(), f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("given", [[0, 2, 4, 5], []], ids=["unequal shares", "one has none"])
def test_two_processes_give_what_one_gives(given, tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(_part, (port, given, str(tmp_path)), nprocs=2, start_method="forkserver")
    preds, target = random_set(0)
    alone = judge(preds, target, num_classes=3)
    for rank in range(2):
        both = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(both, alone, rtol=0, atol=1e-12)
