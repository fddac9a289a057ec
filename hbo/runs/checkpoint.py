"""Checkpoints, ours and the authors': loaded without running code from the file, and only if they match.

A released file (`.pth`) is a plain state dict: `features.I.conv.J`, `features.I.upconv.J`, `conv.J`,
`classifier`, with I counting blocks and J counting layers, activations included.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hbo import config
from hbo.block import Block, HarmoniousBottleneck, InvertedResidual
from hbo.config import Run
from hbo.errors import UserError
from hbo.files import checkpoint_digest, expanded, located
from hbo.names import same_name
from hbo.nets import HBONET, Net, build, round_channels
from hbo.nets.zoo import Rival, renamed
from hbo.runs import rows
from hbo.tasks import SETS
from hbo.tasks.classify import layout

WIDTHS = (0.1, 0.25, 0.35, 0.5, 0.6, 0.75, 0.8, 1.0)  # all in tables 2-6, and MobileNetV2's
DIVISORS = (8, 4, 2)


class Variant(NamedTuple):
    """A released network that fits a file."""

    width: float
    divisor: int
    k: int
    num_classes: int

    def __str__(self) -> str:
        return f"width {self.width}, divisor {self.divisor}, k {self.k}, {self.num_classes} classes"


def read(path: str | Path) -> dict[str, Any]:
    """Open a checkpoint with safe loading.

    Raises:
        UserError: no such file; not a checkpoint; or one that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file")
    try:
        if path.suffix == ".safetensors":  # timm's, or of hbo.export
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch raises the archive's or the unpickler's error, with the advice to trust the file
        raise UserError(
            f"checkpoint {path}: broken, not a checkpoint, or one that would run code"
            f" ({type(error).__name__})"
        ) from None
    if not isinstance(content, Mapping):
        raise UserError(f"checkpoint {path}: contains a {type(content).__name__}, not a state dict")
    return dict(content)


def released_names(net: Net) -> dict[str, str]:
    """Our name of each parameter and buffer -> the release's."""
    modules: dict[str, str] = {}
    place = {module: name for name, module in net.named_modules()}

    def number(prefix: str, *parts: nn.Module) -> None:
        layers = [
            m
            for part in parts
            for m in part.modules()
            if not list(m.children()) and not isinstance(m, nn.Identity)
        ]
        modules.update({place[layer]: f"{prefix}.{i}" for i, layer in enumerate(layers)})

    for i, block in enumerate(net.features):
        if isinstance(block, InvertedResidual):
            number(f"features.{i}.conv", block.expand, block.depthwise, block.project)
        elif isinstance(block, HarmoniousBottleneck):
            number(f"features.{i}.conv", block.contract, block.depthwise, block.project)
            number(f"features.{i}.upconv", block.smooth)
        else:
            number(f"features.{i}", block)
    number("conv", net.head)
    modules["classifier"] = "classifier"
    return {key: f"{modules[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}" for key in net.state_dict()}


def identify(state: Mapping[str, Tensor]) -> list[Variant]:
    """The published networks that a released state dict matches; empty if none."""
    if "classifier.weight" not in state:
        return []
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    classes = shapes["classifier.weight"][0]
    depths = range(1, max(row.cap for row in HBONET.stages) + 1)
    every = [Variant(width, divisor, k, classes) for width in WIDTHS for divisor in DIVISORS for k in depths]
    # Building a net takes 0.1 s, so first compare the channels after the stem and before the head.
    near = [v for v in every if all(shapes.get(key) == shape for key, shape in _outline(v).items())]
    return [variant for variant in near if shapes == _released_shapes(variant)]


def _outline(variant: Variant) -> dict[str, tuple[int, ...]]:
    stem, last, head = (
        round_channels(c, variant.divisor)
        for c in (
            32 * variant.width,
            HBONET.stages[-1].channels * variant.width,
            HBONET.head * max(1.0, variant.width),
        )
    )
    return {"features.0.0.weight": (stem, 3, 3, 3), "conv.0.weight": (head, last, 1, 1)}


def _released_shapes(variant: Variant) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        net = build("hbonet", Block(k=variant.k), variant.width, variant.divisor, variant.num_classes)
    assert isinstance(net, Net)
    names = released_names(net)
    return {names[key]: tuple(value.shape) for key, value in net.state_dict().items()}


def unwrap(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The plain state dict of a file in which a training script wrapped it (`state_dict`, `module.`)."""
    inner = state.get("state_dict", state)
    if not isinstance(inner, Mapping) or not all(isinstance(value, Tensor) for value in inner.values()):
        raise UserError("the checkpoint contains more than a state dict; save only its weights")
    return {str(key).removeprefix("module."): value for key, value in inner.items()}


def load_released(model: nn.Module, source: str | Path | Mapping[str, Tensor]) -> nn.Module:
    """Load a checkpoint of the authors' release into the matching network, all weights or none.

    Args:
        model: `build("hbonet", ...)` with the released scheme.
        source: a `.pth` file, or its state dict.

    Returns:
        The model.

    Raises:
        UserError: the file has another width, divisor, k or number of classes (the message says which), or
        is of another network.
    """
    state = unwrap(source if isinstance(source, Mapping) else read(source))
    where = "the state dict" if isinstance(source, Mapping) else str(source)
    if not isinstance(model, Net):
        raise UserError(f"{where}: released checkpoints only fit hbonet, not {type(model).__name__}")
    if model.block != Block(k=model.block.k):
        raise UserError(
            f"{where}: released weights were trained with the default switches, not with {model.block}"
        )
    names = released_names(model)
    own = {names[key]: tuple(value.shape) for key, value in model.state_dict().items()}
    if own != {key: tuple(value.shape) for key, value in state.items()}:
        found = " or of ".join(map(str, identify(state)))
        if found:
            raise UserError(f"{where}: does not match this model, it is of {found}")
        odd = sorted(own.keys() ^ state.keys()) or [key for key in own if own[key] != tuple(state[key].shape)]
        raise UserError(
            f"{where}: matches neither this model nor a released one; the first key that differs is {odd[0]}"
        )
    model.load_state_dict({key: state[name] for key, name in names.items()})
    return model


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


# ---------------------------------------------------------------- backbones


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
    content = read(path)
    names = content.get("classes")
    saved = content.get("hyper_parameters") or {}
    if {"net", "num_classes"} <= saved.keys():
        rows.check_same_fields(
            saved,
            {name: getattr(run, name) for name in Run.BACKBONE},
            path,
            instead="use one of the same network",
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
        words = f"{saved['net']} trained on {saved['data']}, {saved['epochs']} epochs, seed {saved['seed']}"
    else:
        state, words = unwrap(content), "a state dict"
        if "classifier.weight" in state and run.net == "hbonet":
            number = len(state["classifier.weight"])
            whole = build(run.net, config.block_of(run), run.width, run.divisor, number, run.first_stage)
            state, words = load_released(whole, state).state_dict(), f"the authors' release, {number} classes"
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
            f"backbone_checkpoint {path}: not {run.net} of width {run.width}; the first key that differs is"
            f" {odd[0]}"
        )
    backbone.load_state_dict({key: value if key in fresh else state[key] for key, value in wanted.items()})
    if classifier:
        words += ", classifier fresh" if fresh else ", classifier kept"
    return f"{words} ({checkpoint_digest(str(path))})"


def variant_fields(variant: Variant) -> dict[str, Any]:
    """The fields of `Run` that build a released network."""
    return {"net": "hbonet", "width": variant.width, "divisor": variant.divisor} | asdict(Block(k=variant.k))


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

    def load_into(self, task: Any) -> None:
        """Load the weights into a task (`hbo.tasks`) of this run."""
        if self.ours:
            state = self.content["state_dict"]
            task.load_state_dict(
                {k: v for k, v in state.items() if k.startswith("averaged.")} | evaluated(state)
            )
        else:
            load_released(task.net, unwrap(self.content))


def network(path: Path, given: Mapping[str, Any]) -> Trained:
    """Open a checkpoint for its network alone. A released one has ImageNet's classes. The folder that a run
    was trained on is not read, as it may have been moved or split since.

    Raises:
        UserError: as `trained`.
    """
    ours = "hyper_parameters" in read(path)
    return trained(path, {"data_dir": None, **({} if ours else {"data": "imagenet"}), **given})


def trained(path: Path, given: Mapping[str, Any]) -> Trained:
    """Open a checkpoint. The fields of the network are read from it.

    Args:
        path: a run's folder, a Lightning checkpoint of ours, or a released state dict.
        given: fields of `Run` that override the checkpoint's, such as `data_dir` and `resolution`.

    Raises:
        UserError: the file is neither; a field contradicts it.
    """
    path = located(path)
    content = read(path)
    ours = {"net", "num_classes"} <= set(content.get("hyper_parameters") or ())
    if ours:
        num_classes = content["hyper_parameters"]["num_classes"]
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
        variants = identify(unwrap(content))
        if not variants:
            raise UserError(f"checkpoint {path}: neither a run's checkpoint nor a released network")
        if "data" not in given:
            raise UserError(f"checkpoint {path}: needs a data set, such as --data imagenet --data_dir DIR")
        saved, num_classes = variant_fields(variants[0]), variants[0].num_classes
    asked = {name: value for name, value in given.items() if name in Run.NETWORK}
    rows.check_same_fields(saved, asked, path, instead="remove these flags")
    return Trained(path, config.resolve(**{**saved, **given}), num_classes, content, ours)
