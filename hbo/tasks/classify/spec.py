"""Image classification (section 4.1, tables 2-7), declared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hbo.tasks.classify.sets import SETS
from hbo.tasks.spec import Task, percent, require


@dataclass(frozen=True)
class ClassifyFields:
    """What classification alone obeys."""

    cache_size: int | None = None
    """classify: short side of the cached photographs that random-resized crops are cut from. Left out: eval_resize. Larger ones keep more detail in small crops."""
    per_class: int | None = None
    """classify: at most so many training images of each class, the same for every seed; more of them include fewer."""
    crop: Literal["random", "pad", "none"] = "random"
    """classify: training crops: random-resized as on ImageNet; a random shift by up to an eighth; or the whole image."""
    crop_area: float = 0.08
    """classify: least share of the image's area in a random-resized crop, in (0, 1]."""
    jitter: float = 0.0
    """classify: strength of a random change of brightness and contrast in training, in [0, 1)."""
    augment: Literal["loader", "device"] = "loader"
    """classify: where training's crops are resized, flipped and jittered: in the loader's processes, or on the device that trains, with the same draws."""
    class_weights: Literal["none", "balanced"] = "none"
    """classify: balanced: each class weighs the same in the loss, however many images it has."""


def cached_side(values: Mapping[str, Any]) -> int | None:
    """Short side of the cached photographs, where random-resized crops are cut from them; elsewhere a cache changes no pixel."""
    photographs = values["data"] in SETS and SETS[values["data"]].photographs
    if values["cache"] == "none" or values["crop"] != "random" or not photographs:
        return None
    return values["cache_size"] or values["eval_resize"] or values["resolution"]


def adds(values: Mapping[str, Any]) -> dict[str, Any]:
    """Crops that are cut from smaller copies are other crops."""
    side = cached_side(values)
    return {} if side is None else {"cached_side": side}


def check(run: Any) -> None:
    """Refuse values that no classification can obey.

    Raises:
        UserError: naming the field.
    """
    require(run, "jitter", 0 <= run.jitter < 1, "must lie in [0, 1)")
    for name in ("per_class", "cache_size"):
        require(run, name, getattr(run, name) is None or getattr(run, name) >= 1, "must be at least 1")
    require(
        run,
        "cache_size",
        run.cache_size is None or cached_side(vars(run)) is not None,
        "is of the photographs that random-resized crops are cut from: it needs --cache ram or disk, --crop random and a folder of images",
    )
    require(run, "crop_area", 0 < run.crop_area <= 1, "must lie in (0, 1]")


def report(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Accuracy, and what it hides where classes are of unequal size."""
    names = {"top1": "top-1", "top5": "top-5", "balanced_accuracy": "balanced accuracy"}
    names |= {"f1": "F1"} if row["num_classes"] == 2 else {}
    names |= {"majority": "largest class"}
    return [(said, percent(row, name)) for name, said in names.items() if row.get(name) is not None]


CLASSIFY = Task(
    fields=ClassifyFields,
    idle=frozenset(["backbone_checkpoint"]),
    sets=SETS,
    headline="top1",
    columns={"top1": "top-1", "top5": "top-5", "balanced_accuracy": "balanced accuracy", "f1": "F1"},
    report=report,
    evaluated=0.875,
    check=check,
    adds=adds,
)
