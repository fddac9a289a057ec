"""The data sets by name: what each is for, what it changes of the paper's ImageNet protocol, its classes and its size."""

from typing import Any, Literal

DataName = Literal[
    "elpv", "imagenet", "imagefolder", "cifar10", "cifar100", "imagenette", "digits", "fake", "voc", "vocfolder",
    "market1501", "marketfolder",
]  # fmt: skip

CIFAR = {"resolution": 32, "eval_resize": 32, "epochs": 60, "batch": 128, "lr": 0.1, "crop": "pad", "weight_decay": 5e-4}
VOC = {  # table 8
    "task": "detect", "resolution": 320, "epochs": 560, "batch": 32, "lr": 1e-3, "weight_decay": 5e-4, "schedule": "step",
    "milestones": "360,480", "warmup": 5.0, "warmup_from": 1e-6,
}  # fmt: skip
MARKET = {  # table 9; the 30 epochs more of width 1.0 are `hbo.config.recipe`'s
    "task": "reid", "resolution": 256, "aspect": 2.0, "epochs": 90, "batch": 32, "optimizer": "amsgrad", "lr": 1e-3,
    "weight_decay": 5e-4, "schedule": "step", "milestones": "60", "label_smoothing": 0.1,
}  # fmt: skip
# What each data set changes of the paper's ImageNet protocol.
RECIPES: dict[str, dict[str, Any]] = {
    "imagenet": {},
    "imagefolder": {},
    "elpv": {
        "width": 0.25,  # table 6's network
        "divisor": 8,
        "resolution": 96,
        "eval_resize": 96,
        "crop": "none",
        "flip": "both",  # a cell has no up and no left
        "epochs": 24,
        "batch": 32,
        "weight_decay": 5e-4,
        "class_weights": "balanced",
    },
    "cifar10": CIFAR,
    "cifar100": CIFAR,
    "imagenette": {"resolution": 160, "epochs": 60, "batch": 64, "crop_area": 0.35},
    "digits": {"resolution": 32, "eval_resize": 32, "epochs": 5, "batch": 64, "crop": "none", "flip": "none"},
    "fake": {"resolution": 64, "eval_resize": 64, "epochs": 1, "batch": 32, "crop": "none"},
    "voc": VOC,
    "vocfolder": VOC,
    "market1501": MARKET,
    "marketfolder": MARKET,
}
# Fields that only these tasks obey.
ONLY = {
    **dict.fromkeys(("cache_size", "crop", "crop_area", "jitter", "augment", "per_class", "class_weights"), ("classify",)),
    **dict.fromkeys(("head", "min_scale", "ssd_augment", "freeze_bn"), ("detect",)),
    **dict.fromkeys(("aspect", "classifier_epochs", "instances", "triplet", "bn_neck", "distance"), ("reid",)),
    **dict.fromkeys(("cache", "label_smoothing"), ("classify", "reid")),
    **dict.fromkeys(("holdout", "limit_batches"), ("classify", "detect")),
    "backbone_checkpoint": ("detect", "reid"),
}
CLASSES = {"elpv": 2, "imagenet": 1000, "cifar10": 10, "cifar100": 100, "imagenette": 10, "digits": 10, "fake": 10, "voc": 20}
CLASSES |= {"market1501": 751}
SIZES = {  # images to train on and to report
    "elpv": (1968, 656),
    "imagenet": (1281167, 50000),
    "cifar10": (50000, 10000),
    "cifar100": (50000, 10000),
    "imagenette": (9469, 3925),
    "digits": (1348, 449),
    "fake": (256, 64),
    "voc": (16551, 4952),
    "market1501": (12936, 3368 + 19732),
}


def task_of(data: str) -> str:
    """What a data set is for."""
    return RECIPES[data].get("task", "classify")
