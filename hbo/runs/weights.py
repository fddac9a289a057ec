"""Files of weights: opened without running code from them; the authors' are loaded only if all weights match.

A released file (`.pth`) is a plain state dict: `features.I.conv.J`, `features.I.upconv.J`, `conv.J`,
`classifier`, with I counting blocks and J counting layers, activations included.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hbo.block import Block, HarmoniousBottleneck, InvertedResidual
from hbo.errors import UserError
from hbo.files import nearest_run
from hbo.nets import HBONET, Net, build, round_channels

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


EXPORTED = (".onnx", ".tflite", ".pte", ".xml", ".bin", ".param")  # what hbo.export writes for runtimes


def read(path: str | Path) -> dict[str, Any]:
    """Open a checkpoint with safe loading.

    Raises:
        UserError: no such file; not a checkpoint; or one that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file{nearest_run(path)}")
    try:
        if path.suffix == ".safetensors":  # timm's, or of hbo.export
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch raises the archive's or the unpickler's error, with the advice to trust the file
        if path.suffix in EXPORTED:
            raise UserError(
                f"checkpoint {path}: an exported file; give the run that it was made from"
            ) from None
        raise UserError(
            f"checkpoint {path}: broken, not a checkpoint, or one that would run code"
            f" ({type(error).__name__})"
        ) from None
    if not isinstance(content, Mapping):
        raise UserError(f"checkpoint {path}: contains a {type(content).__name__}, not a state dict")
    return dict(content)


def unwrap(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The plain state dict of a file in which a training script wrapped it (`state_dict`, `module.`)."""
    inner = state.get("state_dict", state)
    if not isinstance(inner, Mapping) or not all(isinstance(value, Tensor) for value in inner.values()):
        raise UserError("the checkpoint contains more than a state dict; save only its weights")
    return {str(key).removeprefix("module."): value for key, value in inner.items()}


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
    with torch.random.fork_rng(devices=[]):  # the meta device would draw nothing, and take ten times as long
        net = build("hbonet", Block(k=variant.k), variant.width, variant.divisor, variant.num_classes)
    assert isinstance(net, Net)
    names = released_names(net)
    return {names[key]: tuple(value.shape) for key, value in net.state_dict().items()}


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


def variant_fields(variant: Variant) -> dict[str, Any]:
    """The fields of `Run` that build a released network."""
    return {"net": "hbonet", "width": variant.width, "divisor": variant.divisor} | asdict(Block(k=variant.k))
