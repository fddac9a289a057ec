"""Recipes by name: how `--recipe` changes the paper's training of a classifier, each with its source.

A recipe only sets fields, so that naming it and typing its values give the same run and key. It sets the
optimizer and the regularisers. Images (resolution, crop, flip, class weights), epochs and batch stay those
of the data set. A flag overrides it, field by field.

paper: Li, Zhou, Yao 2019, section 4.1, with the data set's changes: the default.

mobilenetv2: Sandler et al. 2018, section 6.1, as torchvision trained its weights (references/classification
of pytorch/vision: top-1 71.9 % on ImageNet): SGD instead of RMSProp, 0.045 at a batch of 256, times 0.98
in each of 300 epochs, and dropout before the classifier. Here the decay is scaled to the run's epochs.

modern: MobileNetV4-Conv-S (Qin et al. 2024, arXiv 2404.10518), values as in tensorflow/models,
official/vision/configs/experiments/image_classification/imagenet_mobilenetv4_conv_small_tpu.yaml. The author
of timm trained MobileNetV1 to 75.4 % on ImageNet with hyper-parameters derived from it (70.9 % before;
huggingface.co/blog/rwightman/mobilenet-baselines) and called its first beta unusual, near RMSProp.
Differences here: RandAugment always applies its two changes (there each with probability 0.5), and the
average of weights warms up from the start (there it starts after the warm-up). It was tuned for 9,600
epochs at a batch of 4,096; its value in a few epochs is an open question.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Name = Literal["paper", "mobilenetv2", "modern"]
PAPER = "paper"
EPOCHS, BATCH = 150, 256  # the paper's, unless the data set has its own
WARMUP = 0.2  # largest share of a run that a recipe's warm-up takes


class Recipe(NamedTuple):
    """Changes of a recipe to the paper's.

    lr: the peak rate at a batch of `batch`; scaled with the batch for SGD (Goyal et al. 2017), with its
    square root for AdamW (as in timm).
    warmup: epochs; fewer in a short run.
    weight_decay: does not identify the recipe, as data sets have their own.
    fixed: fields that depend on nothing.
    """

    lr: float
    batch: int
    warmup: float
    weight_decay: float
    fixed: dict[str, Any]


RECIPES: dict[str, Recipe] = {
    "mobilenetv2": Recipe(
        0.045, 256, 0.0, 4e-5, {"optimizer": "sgd", "schedule": "exponential", "dropout": 0.2}
    ),
    "modern": Recipe(
        2e-3,
        4096,
        5.0,
        0.01,
        {
            "optimizer": "adamw",
            "momentum": 0.6,
            "no_decay_on_norm": True,
            "schedule": "cosine",
            "ema": 0.9999,
            "label_smoothing": 0.1,
            "auto_augment": "rand",
            "dropout": 0.3,
        },
    ),
}
SCALED = ("lr", "warmup", "weight_decay")
FIELDS = tuple(dict.fromkeys([*SCALED, *(name for recipe in RECIPES.values() for name in recipe.fixed)]))
OF_TABLES = ("dropout", "drop_path")  # networks of a zoo have their own


def fields(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe.

    Args:
        name: of the recipe; the paper's changes nothing.
        given: the run's fields so far: net, epochs and batch, if they are not the paper's.
    """
    if name == PAPER:
        return {}
    recipe, batch, epochs = (
        RECIPES[name],
        max(given.get("batch", BATCH), 1),
        max(given.get("epochs", EPOCHS), 0),
    )
    share = batch / recipe.batch
    lr = recipe.lr * (share if recipe.fixed["optimizer"] == "sgd" else math.sqrt(share))
    scaled = {"lr": float(f"{lr:.4g}"), "warmup": round(min(recipe.warmup, WARMUP * epochs), 3)}
    return scaled | {"weight_decay": recipe.weight_decay} | fixed(name, given.get("net", ""))


def fixed(name: str, net: str) -> dict[str, Any]:
    """Its fields that depend on neither epochs nor batch nor data set, if the network supports them."""
    own = RECIPES[name].fixed if name in RECIPES else {}
    return {field: value for field, value in own.items() if ":" not in net or field not in OF_TABLES}


def of(given: Mapping[str, Any], usual: Mapping[str, Any]) -> str | None:
    """The name of a run's recipe, whether it was named or typed; None for a mixture.

    Args:
        given: the run's fields.
        usual: their defaults, which are the paper's.
    """
    names = [field for field in FIELDS if field not in SCALED]
    own = {field: given.get(field, usual[field]) for field in names}
    for name in (PAPER, *RECIPES):
        if own == {field: usual[field] for field in names} | fixed(name, str(given.get("net", ""))):
            return name
    return None


def said(run: Any) -> str:
    """A named recipe in one line: its values, and the flags that override them."""
    chosen = fields(run.recipe, vars(run))
    show = lambda names, of: ", ".join(f"{name}={_short(of(name))}" for name in names)
    kept = [name for name in chosen if getattr(run, name) == chosen[name]]
    other = [name for name in chosen if name not in kept]
    recipe = RECIPES[run.recipe]
    scaled = f" (from {recipe.lr:g} at a batch of {recipe.batch})" if "lr" in kept else ""
    line = f"recipe {run.recipe}: {show(kept, chosen.get) or 'no field'}{scaled}"
    return line + (f"; overridden by flags: {show(other, lambda name: getattr(run, name))}" if other else "")


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()
