"""The recipe of a run: the data set's, the one for a small folder, or the one that `--recipe` names
(`hbo.tasks.classify.named`).

The paper's recipe is for 1.28 million images and fails on a few hundred. The values for a small folder
are ordinary fields, stored in the row and in the key. They were tried on two sets of 240 photographs of
CIFAR-10's training part at 64 pixels, with 400 others for validation and one or two seeds each, so that
an accuracy has a standard error of 2.4 points. None is shown to be best: from random weights, half and
twice LR and other batches gave 59 to 70 %, LR 64 to 68; from trained weights, 0.3 to 6 times LR_STARTED
gave 59 to 70, LR_STARTED 65 to 67. On 2,000 validation photographs and 5 seeds
(ablations/few_photographs.csv) the paper's rate at a batch of 64 without a warm-up does not differ
significantly from LR, and trained weights are 4.3 points better.
"""

from collections.abc import Mapping
from typing import Any

from hbo import files
from hbo.errors import UserError
from hbo.tasks.classify import layout, named

SMALL = 20_000  # a folder with this many training images gets the paper's recipe
SAYS = ("epochs", "batch", "lr")  # giving all three replaces the recipe
BATCHES = (4, 8, 16, 32)
UPDATES = 8  # least number of updates per epoch, if there are enough images
LR, LR_STARTED = 0.05, 0.01  # at a batch of 32, scaled with it; for random weights, for trained ones
SEEN, SEEN_STARTED = 24_000, 6_000  # images seen over all epochs
EPOCHS, EPOCHS_STARTED = (20, 100), (8, 30)  # least and most
WARMUP = 0.2  # share of the epochs
WEIGHT_DECAY = 5e-4


def recipe(own: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The data set's recipe, or the one for a small folder; then the changes of the one that `recipe` names.

    Args:
        own: the data set's.
        given: the user's fields, and `data`.
    """
    if any(given.get(name) is None for name in SAYS) and (n := _images(given)):
        own = own | small(n, given)
    return own | named.fields(
        given.get("recipe") or named.PAPER, own | {k: v for k, v in given.items() if v is not None}
    )


def small(n: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe for n training images; fewer epochs and a lower rate if the network
    starts from trained weights.
    """
    started = given.get("backbone_checkpoint") is not None or given.get("weights", "random") != "random"
    batch = given.get("batch") or max(
        [size for size in BATCHES if n >= UPDATES * size], default=min(4, max(2, n // 2))
    )
    least, most = EPOCHS_STARTED if started else EPOCHS
    usual = round((SEEN_STARTED if started else SEEN) / n)
    epochs = given.get("epochs") or min(max(usual, least), most)
    return {
        "epochs": epochs,
        "batch": batch,
        "lr": round((LR_STARTED if started else LR) * batch / 32, 6),
        "warmup": round(WARMUP * epochs, 3),
        "weight_decay": WEIGHT_DECAY,
    }


def said(run: Any) -> str:
    """The chosen recipe in one line; empty if it is the data set's or entirely the user's."""
    given = {
        name: getattr(run, name)
        for name in ("data", "data_dir", "val_split", "backbone_checkpoint", "weights")
    }
    n = _images(given)
    if run.recipe != named.PAPER:
        return named.said(run) + (
            f"; epochs={run.epochs}, batch={run.batch} for {n} training images" if n else ""
        )
    if not n:
        return ""
    chosen = small(n, given | {"epochs": run.epochs, "batch": run.batch})
    same = {name: value for name, value in chosen.items() if getattr(run, name) == value}
    if len(same.keys() - {"epochs", "batch"}) < 2:
        return ""
    scaled = f" (in proportion to the batch: {run.lr * 32 / run.batch:g} at 32)" if "lr" in same else ""
    values = ", ".join(f"{name}={value:g}" + scaled * (name == "lr") for name, value in same.items())
    counted = ", with those that skip_bad will skip" * bool(run.skip_bad)
    return (
        f"recipe for a small folder, {n} training images{counted}: {values}; a flag overrides each"
        f" (all of --{' --'.join(SAYS)} turn the recipe off); images at {run.resolution} x {run.resolution}"
        + " (a smaller --resolution is quicker)"
        * (run.resolution == type(run).resolution)
    )


def _images(given: Mapping[str, Any]) -> int | None:
    """Number of training images of a small folder; None for anything else."""
    path = given.get("data_dir")
    if given["data"] != "imagefolder" or path is None:
        return None
    try:
        root = files.expanded(path)
    except UserError:
        return None
    whole = files.looked_up(("training images", str(root)), lambda: layout.training_images(root, SMALL))
    if whole is None or whole >= SMALL:
        return None
    return (
        whole if layout.kind(root) == "parts" else max(1, round(whole * (1 - (given.get("val_split") or 0))))
    )
