"""Checkpoints of trained networks: the initial weights of a run, or a run opened again with its weights."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from hbo import config
from hbo.config import Run
from hbo.errors import DataError, UserError
from hbo.files import checkpoint_digest, expanded, located
from hbo.names import same_name
from hbo.nets import build
from hbo.nets.zoo import Rival, renamed
from hbo.runs import rows, weights
from hbo.tasks import SETS
from hbo.tasks.classify import layout
from hbo.text import counted


def evaluated(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A run's state with the evaluated weights: the moving average, if it
    has one, instead of the network's.
    """
    average = {
        f"net.{key.removeprefix('averaged.')}": value
        for key, value in state.items()
        if key.startswith("averaged.")
    }
    return {key: average.get(key, value) for key, value in state.items() if not key.startswith("averaged.")}


def load_backbone(
    backbone: nn.Module, run: Run, classifier: frozenset[str] = frozenset(), classes: list[str] | None = None
) -> str:
    """Load a trained classifier's weights into a network, as far as it has them.

    Args:
        backbone: the run's network; for detect and reid without its classifier.
        run: its `start_file` is a run of ours, a file of the authors' release, or a plain state dict of the
            same network (as zoos publish).
        classifier: names of the weights that depend on the classes. They stay fresh if the file has other
            classes, by name, or by number if the file has no names.
        classes: class names.

    Returns:
        The source of the weights in words, for the row.

    Raises:
        UserError: the file is of another network; names the difference.
    """
    path = located(run.start_file() or "")
    content = weights.read(path)
    names = content.get("classes")
    saved = content.get("hyper_parameters") or {}
    if {"net", "num_classes"} <= saved.keys():
        _check_version(saved, path)
        rows.check_same_fields(
            saved,
            {name: getattr(run, name) for name in Run.BACKBONE},
            path,
            instead="add {flags}",
        )
        if saved.get("task", "classify") != "classify":
            raise UserError(
                f"backbone_checkpoint {path}: trained with task={saved['task']}; use a classifier"
            )
        state = {
            k.removeprefix("net."): v
            for k, v in evaluated(content["state_dict"]).items()
            if k.startswith("net.")
        }
        words = f"{saved['net']} trained on {saved['data']}, {trained_for(content)}, seed {saved['seed']}"
    else:
        state, words = weights.unwrap(content), "a state dict"
        if "classifier.weight" in state and run.net == "hbonet":
            number = len(state["classifier.weight"])
            whole = build(run.net, config.block_of(run), run.width, run.divisor, number, run.first_stage)
            state = weights.load_released(whole, state).state_dict()
            words = f"the authors' release, {number} classes"
    wanted = backbone.state_dict()
    if isinstance(backbone, Rival) and not any(key in wanted for key in state):
        # A zoo's file does not have the adapter around the network.
        state = {f"net.{key}": value for key, value in state.items()}
    # Older files of torchvision lack this counter, which nothing uses.
    state = {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked")} | state
    if isinstance(backbone, Rival):
        state = renamed(run.net, state)
    fits = lambda key: key in state and state[key].shape == wanted[key].shape
    same = all(map(fits, classifier)) and (
        classes is None or names is None or [same_name(n) for n in names] == list(classes)
    )
    fresh = frozenset() if same else classifier
    if odd := sorted(key for key in wanted if key not in fresh and not fits(key)):
        raise UserError(
            f"backbone_checkpoint {path}: not of {config.describe_net(run)}; the first key"
            f" that differs is {odd[0]} ({_size(state, odd[0])} saved, {_size(wanted, odd[0])} asked); add"
            " the flags that it was trained with"
        )
    backbone.load_state_dict({key: value if key in fresh else state[key] for key, value in wanted.items()})
    if classifier:
        words += ", classifier fresh" if fresh else ", classifier kept"
    return f"{words} ({checkpoint_digest(str(path))})"


def _check_version(saved: Mapping[str, Any], path: Path) -> None:
    """Check that this code has all fields of a checkpoint of ours: without one it would be another network.

    Raises:
        UserError: names the fields.
    """
    if why := rows.unknown_fields(saved):
        raise UserError(f"checkpoint {path}: {why}; use that version")


def trained_for(content: Mapping[str, Any]) -> str:
    """How long a checkpoint of ours was trained: its epochs, or where it stopped."""
    return stopped(content) or counted(content["hyper_parameters"]["epochs"], "epoch")


def stopped(content: Mapping[str, Any]) -> str:
    """Where the training of a checkpoint of ours stopped before its end, or nothing."""
    saved = content["hyper_parameters"]
    epochs = saved["epochs"] + (saved.get("classifier_epochs") or 0)
    at_end = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"]
    if content["epoch"] + 1 >= epochs and at_end:
        return ""
    return (
        f"unfinished, stopped at update {content['global_step']} in epoch {content['epoch'] + 1} of {epochs}"
    )


def _size(state: Mapping[str, Tensor], key: str) -> str:
    """A weight's shape, as 32 x 16 x 1 x 1."""
    return " x ".join(map(str, state[key].shape)) or "a number" if key in state else "none"


def is_split(path: str) -> bool:
    """Whether a folder of images to classify is split into training and validation."""
    root = expanded(path)
    try:
        return (
            layout.WHOLE not in layout.contents(root)
            if layout.kind(root) == "csv"
            else layout.kind(root) != "classes"
        )
    except UserError:
        return False  # opening it raises the error


class Trained(NamedTuple):
    """A trained network's checkpoint, ours or a released one: its run, and the weights."""

    path: Path
    run: Run
    num_classes: int
    content: dict[str, Any]
    ours: bool

    @property
    def classes(self) -> list[str] | None:
        """Class names, in the order of its outputs; None for a released file, or one
        from before they were stored.
        """
        names = self.content.get("classes") if self.ours else None
        return names and [same_name(name) for name in names]

    def warn(self) -> None:
        """Say on standard error that a run is unfinished: its numbers are not a result."""
        if self.ours and "loops" in self.content and (where := stopped(self.content)):
            print(f"warning: {self.path}: {where}; the same hbo.fit command resumes it", file=sys.stderr)

    def load_into(self, task: Any) -> None:
        """Load the weights into a task (`hbo.tasks`) of this run."""
        if self.ours:
            state = self.content["state_dict"]
            task.load_state_dict(
                {k: v for k, v in state.items() if k.startswith("averaged.")} | evaluated(state)
            )
        else:
            weights.load_released(task.net, weights.unwrap(self.content))


def network(path: Path, given: Mapping[str, Any]) -> Trained:
    """Open a checkpoint for its network alone. A released one has ImageNet's classes. The folder that a run
    was trained on is not read, as it may have been moved or split since.

    Raises:
        UserError: as `trained`.
    """
    ours = "hyper_parameters" in weights.read(path)
    return trained(path, {"data_dir": None, **({} if ours else {"data": "imagenet"}), **given})


# Fields that only training uses: a flag that changes one is an error for a network that is trained.
TRAINING = (
    "backbone_checkpoint", "classifier_epochs", "freeze_bn", "backbone_lr_factor", "weights", "log_every",
    "crop_area", "jitter", "augment", "distill_temperature", "distill_weight", "ssd_augment", "epochs",
    "lr", "optimizer", "momentum", "nesterov", "weight_decay", "no_decay_on_norm", "grad_clip", "ema",
    "schedule", "milestones", "warmup", "warmup_from", "mixup", "cutmix", "auto_augment", "random_erasing",
    "dropout", "drop_path", "distill", "seed", "force", "study", "eval_every", "checkpoint_every",
)  # fmt: skip


def trained(path: Path, given: Mapping[str, Any]) -> Trained:
    """Open a checkpoint. The fields of the network are read from it.

    Args:
        path: a run's folder, a Lightning checkpoint of ours, or a released state dict.
        given: fields of `Run` that override the checkpoint's, such as `data_dir` and `resolution`.

    Raises:
        UserError: the file is neither; a field contradicts it, or puts training images among the others.
    """
    path = located(path)
    content = weights.read(path)
    ours = {"net", "num_classes"} <= set(content.get("hyper_parameters") or ())
    if ours:
        num_classes = content["hyper_parameters"]["num_classes"]
        _check_version(content["hyper_parameters"], path)
        saved = config.as_saved(content["hyper_parameters"])
        # Settings of training and of the machine do not affect the evaluation.
        saved |= {
            "devices": 1,
            "num_nodes": 1,
            "strategy": "auto",
            "accelerator": "auto",
            "holdout": saved["holdout"],
        }
        if given.get("data", saved["data"]) != saved["data"] or not SETS[saved["data"]].takes_folder:
            saved["data_dir"] = None  # another data set's, or one that an earlier version did not check
        if (
            saved.get("val_split")
            and "val_split" not in given
            and given.get("data_dir") is not None
            and is_split(given["data_dir"])
        ):
            saved["val_split"] = 0.0  # of another folder, which has its own split
        # Keep the ratio of crop to image: the whole stays the whole, 0.875 stays 0.875.
        if "resolution" in given:
            whole = saved["eval_resize"] == saved["resolution"]
            saved["eval_resize"] = given["resolution"] if whole else None
    else:
        variants = weights.identify(weights.unwrap(content))
        if not variants:
            raise UserError(f"checkpoint {path}: neither a run's checkpoint nor a released network")
        if "data" not in given:
            raise UserError(f"checkpoint {path}: needs a data set, such as --data imagenet --data_dir DIR")
        saved, num_classes = weights.variant_fields(variants[0]), variants[0].num_classes
    unused = [n for n in TRAINING if n in given and given[n] != saved.get(n, getattr(Run, n))]
    if unused:
        raise UserError(
            f"{', '.join(f'{name}={given[name]}' for name in unused)}: only training uses this; remove it"
        )
    if ours:
        _check_split(path, content["hyper_parameters"], given)
    asked = {name: value for name, value in given.items() if name in Run.NETWORK}
    rows.check_same_fields(saved, asked, path, instead="remove these flags")
    return Trained(path, config.resolve_saved(**{**saved, **given}), num_classes, content, ours)


def _check_split(path: Path, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Check that the images which a run was trained on are split as they were for it.

    Args:
        path: the checkpoint. The fingerprint of the images, in the row beside it, recognises a whole copy.
        saved: its fields.
        given: those of the evaluation.

    Raises:
        UserError: they are split otherwise.
    """
    usual = {name: saved.get(name, 0.0) for name in ("val_split", "holdout")}
    other = [name for name, was in usual.items() if given.get(name, was) not in (was, 0)]
    if not other or given.get("data", saved["data"]) != saved["data"]:
        return
    folders = [folder and expanded(folder).resolve() for folder in (given.get("data_dir"), saved["data_dir"])]
    if None not in folders and folders[0] != folders[1] and SETS[saved["data"]].by_folder:
        images = ((rows.sound(path.parent) or {}).get("identity") or {}).get("images")
        try:
            found = config.resolve_saved(**{**config.as_saved(saved), **given}).identity().get("images")
        except DataError:  # it has the evaluated part alone, or is refused when it is opened
            return
        if images != found:
            return
    name = other[0]
    raise UserError(
        f"{name}={given[name]}: trained with {name}={usual[name]}, so it would be evaluated on images that it"
        f" was trained on; remove --{name}"
    )
