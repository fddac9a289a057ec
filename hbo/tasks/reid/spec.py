"""Re-identification (section 4.3, table 9), declared."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hbo.tasks.reid import layout
from hbo.tasks.spec import DataSet, Look, Task, percent, require

MARKET = {  # table 9; the 30 epochs more of width 1.0 are `longer`'s
    "task": "reid", "resolution": 256, "aspect": 2.0, "epochs": 90, "batch": 32, "optimizer": "amsgrad", "lr": 1e-3,
    "weight_decay": 5e-4, "schedule": "step", "milestones": "60", "label_smoothing": 0.1,
}  # fmt: skip


@dataclass(frozen=True)
class ReidFields:
    """What re-identification alone obeys."""

    aspect: float = 1.0
    """reid: height of the input over its width."""
    classifier_epochs: int | None = None
    """reid: epochs in advance of the others in which the classifier alone is trained, on the backbone_checkpoint as it is. Left out: 10 with one; 0 without."""
    instances: int | None = None
    """reid: P x K sampling, K images of each of batch / K identities in a batch. Left out: all images in random order."""
    triplet: bool = False
    """reid: add the batch-hard triplet loss, of margin 0.3, to the cross-entropy; needs --instances."""
    bn_neck: bool = False
    """reid: a batch norm between the feature and its classifier; images are then retrieved by what it gives."""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """reid: distance by which the gallery is ranked."""


def longer(recipe: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Table 9 trains a width of 1.0 for 30 epochs more, at their end."""
    from hbo.nets import TABLES  # torch, which this declaration does without

    whole = given.get("net", "hbonet") in TABLES and given.get("width", 0.25) in (1.0, None)
    return recipe | {"epochs": recipe["epochs"] + 30} if whole else recipe


def settle(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A classifier is trained in advance where the backbone comes from a checkpoint."""
    if values.get("classifier_epochs") is not None:
        return {}
    return {"classifier_epochs": 10 if values.get("backbone_checkpoint") else 0}


def check(run: Any) -> None:
    """Refuse values that no re-identification can obey.

    Raises:
        UserError: naming the field.
    """
    require(run, "eval_resize", run.eval_resize in (None, run.resolution), "re-identification takes the whole image")
    require(run, "aspect", run.aspect >= 0.01, "must be at least 0.01")
    require(run, "aspect", run.size[1] >= 16, f"the width, resolution={run.resolution} over it, must be at least 16")
    early, k = run.classifier_epochs or 0, run.instances
    require(run, "classifier_epochs", early >= 0, "must not be negative")
    fresh = early > 0 and run.backbone_checkpoint is None
    require(run, "classifier_epochs", not fresh, "needs a --backbone_checkpoint: a fresh backbone has to be trained")
    require(run, "instances", k is None or k >= 2, "must be at least 2")
    shared = run.batch // run.world
    whole = k is None or (shared % k == 0 and shared >= 2 * k)
    require(run, "instances", whole, f"the {shared} images of a batch on a device must be so many of 2 identities or more")
    require(run, "triplet", k is not None or not run.triplet, "needs --instances 2 or more: an anchor wants a positive")


def report(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """mAP, ranks, and how many queries there were."""
    lines = [("mAP", percent(row, "map")), *((f"rank-{n}", percent(row, f"rank{n}")) for n in (1, 5, 10, 20))]
    return [*lines, ("queries", f"{row['queries']}, {row['unmatched']} without a match")]


def _look_at_market1501(root: Path | None) -> Look:
    assert root is not None
    return layout.look(layout.market1501(root), layout.MARKET1501)


def _look_at_folder(root: Path | None) -> Look:
    assert root is not None
    return layout.look(root)


REID = Task(
    fields=ReidFields,
    idle=frozenset(["holdout", "limit_batches"]),
    sets={
        "market1501": DataSet(
            MARKET,
            images=(12936, 3368 + 19732),
            classes=751,
            look=_look_at_market1501,
            marks=("Market-1501-v15.09.15",),
            title="Market-1501",
        ),
        "marketfolder": DataSet(MARKET, look=_look_at_folder, count=layout.count, marks=layout.PARTS),
    },
    headline="map",
    columns={"map": "mAP", "rank1": "rank-1"},
    report=report,
    more=("rank5", "rank10", "rank20"),
    new_classes=True,
    settle=settle,
    recipe=longer,
    check=check,
)
