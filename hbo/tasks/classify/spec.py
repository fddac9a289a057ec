"""Image classification (section 4.1, tables 2-7), declared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hbo import files
from hbo.tasks.classify import layout, named, recipes
from hbo.tasks.classify.sets import SETS
from hbo.tasks.spec import Task, percent, require

QUALITY = 90  # of the photographs in --cache jpeg, of 100


@dataclass(frozen=True)
class ClassifyFields:
    """Fields of classification."""

    recipe: named.Name = "paper"
    """classify: recipe: paper, with the data set's changes; mobilenetv2, torchvision's; modern, that of
    MobileNetV4's small network. Sets rate, weight decay, optimizer and regularisers, scaled to --batch and
    --epochs; a flag overrides each."""
    cache_size: int | None = None
    """classify: short side of the cached photographs from which random-resized crops are cut. Default:
    eval_resize. A larger one keeps more detail in small crops."""
    per_class: int | None = None
    """classify: at most this many training images of each class, the same for every seed; larger subsets
    contain the smaller ones."""
    crop: Literal["random", "pad", "none"] = "random"
    """classify: training crops: random, random-resized as on ImageNet; pad, a random shift by up to an
    eighth; or the whole image."""
    crop_area: float = 0.08
    """classify: smallest share of the image's area in a random-resized crop, in (0, 1]."""
    decode: Literal["whole", "draft"] = "whole"
    """classify: draft: decode a JPEG at the smallest scale (1/8, 1/4, 1/2) at which its random-resized crop
    is not enlarged: quicker for large photographs without a cache, with slightly different pixels."""
    jitter: float = 0.0
    """classify: strength of a random change of brightness and contrast in training, in [0, 1)."""
    augment: Literal["loader", "device"] = "loader"
    """classify: where training images are cropped, flipped and jittered: in the loader's processes, or on the
    training device, with the same random draws."""
    auto_augment: Literal["none", "trivial", "rand"] = "none"
    """classify: random augmentation of training images: torchvision's TrivialAugment (wide) or RandAugment (2
    changes of magnitude 9)."""
    random_erasing: float = 0.0
    """classify: share of the training images in which a random rectangle is erased, in [0, 1]."""
    mixup: float = 0.0
    """classify: alpha of mixup, which trains on weighted sums of two images and of their labels; with cutmix,
    each batch uses one of both. 0: off."""
    cutmix: float = 0.0
    """classify: alpha of CutMix, which pastes a part of one image into another and mixes their labels by
    area. 0: off."""
    dropout: float = 0.0
    """classify: dropout before the classifier, in [0, 1)."""
    drop_path: float = 0.0
    """classify: stochastic depth: rate at which the last block's residual branch is dropped, in [0, 1); it
    grows linearly from 0 at the first block."""
    distill: str | None = None
    """classify: teacher for distillation, trained on the same classes: a run's folder, key or last.ckpt, a
    .pth of the authors' release, or a zoo's network with its published weights, such as
    torchvision:resnet50."""
    distill_temperature: float = 4.0
    """classify: temperature that divides the teacher's and the network's logits."""
    distill_weight: float = 0.9
    """classify: weight of the teacher in the loss, in [0, 1]; the labels have the rest."""
    class_weights: Literal["none", "balanced"] = "none"
    """classify: balanced: each class has the same weight in the loss, whatever its number of images."""
    weights: Literal["random", "default"] = "random"
    """classify: default: start a zoo's network from its published weights, from this machine or, with
    --download, from the network."""
    backbone_lr_factor: float = 1.0
    """classify: learning rate of the backbone as a factor of --lr, in (0, 1]."""


def cached_side(values: Mapping[str, Any]) -> int | None:
    """Short side of the cached photographs for random-resized crops; with other
    crops a cache changes no pixel.
    """
    photographs = values["data"] in SETS and SETS[values["data"]].photographs
    if values["cache"] == "none" or values["crop"] != "random" or not photographs:
        return None
    return values["cache_size"] or values["eval_resize"] or values["resolution"]


def adds(values: Mapping[str, Any]) -> dict[str, Any]:
    """Crops from smaller copies have different pixels, and those of JPEG different ones again."""
    side = cached_side(values)
    if side is None:
        return {}
    return {"cached_side": side} | ({"cached_jpeg": QUALITY} if values["cache"] == "jpeg" else {})


def check(run: Any) -> None:
    """Check the fields of classification.

    Raises:
        UserError: naming the field.
    """
    require(run, "jitter", 0 <= run.jitter < 1, "must be in [0, 1)")
    for name in ("per_class", "cache_size"):
        require(run, name, getattr(run, name) is None or getattr(run, name) >= 1, "must be at least 1")
    require(
        run,
        "cache_size",
        run.cache_size is None or cached_side(vars(run)) is not None,
        "is the size of the photographs from which random-resized crops are cut: it needs --cache ram,"
        " disk or jpeg, --crop random and a folder of images",
    )
    plain = run.cache == "none" and run.augment == "loader" and run.auto_augment == "none"
    require(
        run,
        "decode",
        run.decode == "whole" or (plain and run.crop == "random" and SETS[run.data].photographs),
        "is for random-resized crops of single photographs: it needs a folder of images, --crop random,"
        " --cache none, --augment loader and --auto_augment none",
    )
    _check_start(run)
    _check_noise(run)
    require(run, "distill_temperature", run.distill_temperature > 0, "must be positive")
    require(run, "distill_weight", 0 <= run.distill_weight <= 1, "must be in [0, 1]")
    for name in ("distill_temperature", "distill_weight"):
        taught = run.distill is not None or getattr(run, name) == getattr(ClassifyFields, name)
        require(run, name, taught, "needs --distill, a teacher")
    require(
        run,
        "val_split",
        SETS[run.data].by_folder or not run.val_split,
        f"data={run.data} is already split; remove --val_split",
    )
    require(run, "crop_area", 0 < run.crop_area <= 1, "must be in (0, 1]")


def settle(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Normalise `classifier_epochs` (0 means None, in the key too), and check that a user's folder is split
    or `val_split` is given.

    Raises:
        UserError: neither, or both.
    """
    data, path = values["data"], values.get("data_dir")
    if SETS[data].by_folder and path is not None and files.expanded(path).exists():
        root, share = SETS[data].root(data, path), values.get("val_split") or 0.0
        if share or layout.kind(root) != "parts":
            layout.check_split(root, share)
    return {"classifier_epochs": values.get("classifier_epochs") or None}


def _check_start(run: Any) -> None:
    """Check the initial weights, and the fields that need them.

    Raises:
        UserError: naming the field.
    """
    zoo = ":" in run.net
    require(
        run,
        "weights",
        zoo or run.weights == "random",
        f"is for networks of a zoo; for {run.net} use --backbone_checkpoint",
    )
    both = run.weights != "random" and run.backbone_checkpoint is not None
    require(run, "weights", not both, f"and backbone_checkpoint={run.backbone_checkpoint}; give one of them")
    early = run.classifier_epochs or 0
    require(run, "classifier_epochs", 0 <= early < 2**31, "must not be negative")
    asked = "needs --backbone_checkpoint or --weights default"
    require(
        run, "classifier_epochs", run.pretrained or not early, f"{asked}: a fresh network must be trained"
    )
    require(
        run,
        "freeze_bn",
        run.pretrained or not run.freeze_bn,
        f"{asked}: fresh batch norm has no statistics to keep",
    )
    require(run, "backbone_lr_factor", 0 < run.backbone_lr_factor <= 1, "must be in (0, 1]")


def _check_noise(run: Any) -> None:
    """Check the regularisers, and that the network and the loader support them.

    Raises:
        UserError: naming the field.
    """
    require(run, "random_erasing", 0 <= run.random_erasing <= 1, "must be in [0, 1]")
    for name in ("mixup", "cutmix"):
        require(run, name, getattr(run, name) >= 0, "must not be negative")
    for name in ("dropout", "drop_path"):
        require(run, name, 0 <= getattr(run, name) < 1, "must be in [0, 1)")
        require(run, name, ":" not in run.net or not getattr(run, name), f"{run.net} has its own; remove it")
    plain = run.auto_augment == "none" or (run.cache == "none" and run.augment == "loader")
    require(
        run,
        "auto_augment",
        plain,
        "works on single decoded images: it needs --cache none and --augment loader",
    )


def report(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Accuracy, and the metrics that account for unequal class sizes."""
    names = {"top1": "top-1", "top5": "top-5", "balanced_accuracy": "balanced accuracy"}
    one = f"F1 of {row['classes'][1]:.12}" if row.get("classes") else "F1"
    names |= {"f1": one if row["num_classes"] == 2 else "mean F1"}
    names |= {"majority": "largest class"}
    return [(said, percent(row, name)) for name, said in names.items() if row.get(name) is not None]


CLASSIFY = Task(
    fields=ClassifyFields,
    idle=frozenset(),
    sets=SETS,
    headline="top1",
    picture="mistakes",
    columns={"top1": "top-1", "top5": "top-5", "balanced_accuracy": "balanced accuracy", "f1": "F1"},
    report=report,
    evaluated=0.875,
    check=check,
    settle=settle,
    recipe=recipes.recipe,
    advice=recipes.said,
    adds=adds,
)
