"""Checkpoints, ours and the authors': loaded without running code from the file, and only where they match.

A released file (`.pth`) is a plain state dict: `features.I.conv.J`, `features.I.upconv.J`, `conv.J`, `classifier`, with I
counting blocks and J counting layers, activations included.
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
from hbo.files import checkpoint_digest, located
from hbo.names import same_name
from hbo.nets import HBONET, Net, build, round_channels
from hbo.nets.zoo import Rival
from hbo.runs import rows
from hbo.tasks import SETS

WIDTHS = (0.1, 0.25, 0.35, 0.5, 0.6, 0.75, 0.8, 1.0)  # all that tables 2-6 publish, and MobileNetV2's
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
        UserError: no such file; not a checkpoint; or one that needs code to be run, which is refused.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what the broken archive or the unpickler raised, and advises to trust the file
        raise UserError(
            f"checkpoint {path}: broken, no checkpoint, or one that would run code ({type(error).__name__})"
        ) from None
    if not isinstance(content, Mapping):
        raise UserError(f"checkpoint {path}: holds a {type(content).__name__}, not a state dict")
    return dict(content)


def released_names(net: Net) -> dict[str, str]:
    """Our name of each parameter and buffer -> the release's."""
    modules: dict[str, str] = {}
    place = {module: name for name, module in net.named_modules()}

    def number(prefix: str, *parts: nn.Module) -> None:
        layers = [m for part in parts for m in part.modules() if not list(m.children()) and not isinstance(m, nn.Identity)]
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
    """The published networks that a released state dict can be of; empty where it is of none."""
    if "classifier.weight" not in state:
        return []
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    classes = shapes["classifier.weight"][0]
    depths = range(1, max(row.cap for row in HBONET.stages) + 1)
    every = [Variant(width, divisor, k, classes) for width in WIDTHS for divisor in DIVISORS for k in depths]
    # Building a net takes 0.1 s: only where the channels after the stem and before the head agree.
    near = [v for v in every if all(shapes.get(key) == shape for key, shape in _outline(v).items())]
    return [variant for variant in near if shapes == _released_shapes(variant)]


def _outline(variant: Variant) -> dict[str, tuple[int, ...]]:
    stem, last, head = (
        round_channels(c, variant.divisor)
        for c in (32 * variant.width, HBONET.stages[-1].channels * variant.width, HBONET.head * max(1.0, variant.width))
    )
    return {"features.0.0.weight": (stem, 3, 3, 3), "conv.0.weight": (head, last, 1, 1)}


def _released_shapes(variant: Variant) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        net = build("hbonet", Block(k=variant.k), variant.width, variant.divisor, variant.num_classes)
    assert isinstance(net, Net)
    names = released_names(net)
    return {names[key]: tuple(value.shape) for key, value in net.state_dict().items()}


def unwrap(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The plain state dict of a file that wraps it (`state_dict`, `module.`), as training scripts write it."""
    inner = state.get("state_dict", state)
    if not isinstance(inner, Mapping) or not all(isinstance(value, Tensor) for value in inner.values()):
        raise UserError("the checkpoint holds more than a state dict; save its weights alone")
    return {str(key).removeprefix("module."): value for key, value in inner.items()}


def load_released(model: nn.Module, source: str | Path | Mapping[str, Tensor]) -> nn.Module:
    """Load a checkpoint of the authors' release into the matching network, every weight of it or none.

    Args:
        model: `build("hbonet", ...)` with the released scheme.
        source: a `.pth` file, or its state dict.

    Returns:
        The model.

    Raises:
        UserError: the file is of another width, divisor, k or number of classes (it says which), or of another network.
    """
    state = unwrap(source if isinstance(source, Mapping) else read(source))
    where = "the state dict" if isinstance(source, Mapping) else str(source)
    if not isinstance(model, Net):
        raise UserError(f"{where}: released checkpoints fit hbonet alone, not {type(model).__name__}")
    if model.block != Block(k=model.block.k):
        raise UserError(f"{where}: released weights were trained with the default switches, not with {model.block}")
    names = released_names(model)
    own = {names[key]: tuple(value.shape) for key, value in model.state_dict().items()}
    if own != {key: tuple(value.shape) for key, value in state.items()}:
        found = " or of ".join(map(str, identify(state)))
        if found:
            raise UserError(f"{where}: does not match this model, it is of {found}")
        odd = sorted(own.keys() ^ state.keys()) or [key for key in own if own[key] != tuple(state[key].shape)]
        raise UserError(f"{where}: does not match this model, nor any released one; the first key that differs is {odd[0]}")
    model.load_state_dict({key: state[name] for key, name in names.items()})
    return model


# ---------------------------------------------------------------- backbones


def load_backbone(backbone: nn.Module, run: Run) -> str:
    """Give the network of another task the weights of a trained classifier, all that it has a place for.

    Args:
        backbone: the run's network without its classifier.
        run: whose `backbone_checkpoint` is a run of ours, a file of the authors' release, or a plain state dict of the
            very network (as torchvision publishes its own).

    Returns:
        Where the weights come from, in words, for the row.

    Raises:
        UserError: the file is of another network; names what differs.
    """
    path = located(run.backbone_checkpoint or "")
    content = read(path)
    saved = content.get("hyper_parameters") or {}
    if {"net", "num_classes"} <= saved.keys():
        rows.check_same_fields(
            saved,
            {name: getattr(run, name) for name in Run.BACKBONE},
            path,
            instead="take one of the same network",
        )
        if saved.get("task", "classify") != "classify":
            raise UserError(f"backbone_checkpoint {path}: trained to {saved['task']}; take a classifier's")
        state = {k.removeprefix("net."): v for k, v in content["state_dict"].items() if k.startswith("net.")}
        words = f"{saved['net']} trained on {saved['data']}, {saved['epochs']} epochs, seed {saved['seed']}"
    else:
        state, words = unwrap(content), "a state dict"
        if "classifier.weight" in state and run.net == "hbonet":
            classes = len(state["classifier.weight"])
            whole = build(run.net, config.block_of(run), run.width, run.divisor, classes, run.first_stage)
            state, words = load_released(whole, state).state_dict(), f"the authors' release, {classes} classes"
    wanted = backbone.state_dict()
    if isinstance(backbone, Rival) and not any(key in wanted for key in state):
        state = {f"net.{key}": value for key, value in state.items()}  # a zoo's file has no adapter around the network
    # Older files of torchvision lack this count, which nothing uses.
    state = {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked")} | state
    if odd := sorted(key for key in wanted if key not in state or state[key].shape != wanted[key].shape):
        raise UserError(
            f"backbone_checkpoint {path}: not of {run.net} of width {run.width}; the first key that differs is {odd[0]}"
        )
    backbone.load_state_dict({key: state[key] for key in wanted})
    return f"{words} ({checkpoint_digest(str(path))})"


def variant_fields(variant: Variant) -> dict[str, Any]:
    """The fields of `Run` that build a released network."""
    return {"net": "hbonet", "width": variant.width, "divisor": variant.divisor} | asdict(Block(k=variant.k))


class Trained(NamedTuple):
    """A trained network's checkpoint, ours or a released one: the run that it is of, and the weights."""

    path: Path
    run: Run
    num_classes: int
    content: dict[str, Any]
    ours: bool

    @property
    def classes(self) -> list[str] | None:
        """Names of its classes, in the order of its outputs; none in a released file, or one from before they were kept."""
        names = self.content.get("classes") if self.ours else None
        return names and [same_name(name) for name in names]

    def load_into(self, task: Any) -> None:
        """Load the weights into a task (`hbo.tasks`) of this run."""
        if self.ours:
            task.load_state_dict(self.content["state_dict"])
        else:
            load_released(task.net, unwrap(self.content))


def trained(path: Path, given: Mapping[str, Any]) -> Trained:
    """Open a checkpoint. The fields of the network are taken from it.

    Args:
        path: a run's folder, a Lightning checkpoint of ours, or a released state dict.
        given: fields of `Run` that differ from the checkpoint's, such as `data_dir` and `resolution`.

    Raises:
        UserError: the file is neither; a field contradicts it.
    """
    path = located(path)
    content = read(path)
    ours = {"net", "num_classes"} <= set(content.get("hyper_parameters") or ())
    if ours:
        saved = dict(content["hyper_parameters"])
        num_classes = saved.pop("num_classes")
        # How it was trained, and where, says nothing of how it is evaluated.
        saved |= {"devices": 1, "num_nodes": 1, "strategy": "auto", "accelerator": "auto", "holdout": saved["holdout"]}
        if given.get("data", saved["data"]) != saved["data"] or not SETS[saved["data"]].takes_folder:
            saved["data_dir"] = None  # of another set, or one that an earlier release let pass unread
        if "resolution" in given:  # the whole image stays the whole image, the middle 0.875 the middle 0.875
            whole = saved["eval_resize"] == saved["resolution"]
            saved["eval_resize"] = given["resolution"] if whole else None
    else:
        variants = identify(unwrap(content))
        if not variants:
            raise UserError(f"checkpoint {path}: neither a run's nor a released network's")
        if "data" not in given:
            raise UserError(f"checkpoint {path}: say on what, such as --data imagenet --data_dir DIR")
        saved, num_classes = variant_fields(variants[0]), variants[0].num_classes
    asked = {name: value for name, value in given.items() if name in Run.NETWORK}
    rows.check_same_fields(saved, asked, path, instead="leave these flags out")
    return Trained(path, config.resolve(**{**saved, **given}), num_classes, content, ours)
