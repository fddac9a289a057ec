"""HBO in Python, one line each; the names are exported from `hbo` itself.

>>> import torch, hbo
>>> net = hbo.build("hbonet", k=2, width=0.25)          # fresh weights, 1000 classes
>>> round(hbo.macs(net, 224) / 1e6)
37
>>> hbo.build("hbonet", k=2, num_classes=0)(torch.zeros(1, 3, 64, 64)).shape    # features, no classifier
torch.Size([1, 1600])
>>> maps = net.pyramid(torch.zeros(1, 3, 64, 64))
>>> {stride: tuple(map.shape) for stride, map in maps.items() if stride > 8}
{16: (1, 216, 4, 4), 32: (1, 1600, 2, 2)}
"""

from pathlib import Path
from typing import Any

from hbo import config, fit, nets, predict
from hbo.block import Block
from hbo.nets import FirstStage, Pyramid
from hbo.nets.counting import macs
from hbo.runs.checkpoint import Trained
from hbo.tasks import build as tasks
from hbo.words import did_you_mean

__all__ = ["build", "load", "load_released", "macs", "train"]


def build(
    net: str = "hbonet",
    *,
    width: float | None = 0.25,
    divisor: int | None = None,
    num_classes: int = 1000,
    first_stage: FirstStage = "release",
    **switches: Any,
) -> Pyramid:
    """A network with fresh weights: `net(x)`, (B, 3, H, W) -> (B, classes), and `net.pyramid(x)`, {stride:
    (B, C, H', W')}.

    Args:
        net: hbonet, hbonet_ir, mobilenetv2, mobilenetv2_hbo, or torchvision:NAME, timm:NAME, pytorchcv:NAME.
        width: multiplier of every stage's channels; fixed for networks of a zoo.
        divisor: channels are multiples of it; None: the published one for this net and width.
        num_classes: outputs of the classifier; 0: none, and `net(x)` returns features (B, C), as in timm.
        first_stage: hbonet's first stage as released or as printed in table 1.
        switches: the block's: k, concat_ratio, upsample, residual, scheme, contract, kernel.

    Raises:
        UserError: an unknown net or switch, or a value out of range.
    """
    known = list(Block.__dataclass_fields__)
    if odd := sorted(switches.keys() - set(known)):
        raise config.UserError(f"{odd[0]}={switches[odd[0]]!r}: no such switch{did_you_mean(odd[0], known)}")
    block = Block(**{name: config.checked(name, value) for name, value in switches.items()})
    return nets.build(net, block, width, divisor, num_classes, first_stage)


def load(path: str | Path, **fields: Any) -> Any:
    """A trained network in evaluation mode.

    Args:
        path: a run's folder, its last.ckpt, its key, or a .pth of the authors' release.
        fields: fields of `Run` that override the checkpoint's, such as `resolution`.

    Returns:
        The network. `classes`: the class names in the order of its outputs, None if the file has none.
        `preprocess`: a file or PIL image -> (3, H, W), as in the run's evaluation. A detector returns
            logits and offsets, which its `detections` turns into boxes; a re-identifier returns the feature
            by which images are compared.

    Raises:
        UserError: no such file, not a checkpoint of a run or of the release, or a field that contradicts it.
    """
    return _ready(predict.opened(path, fields))


def load_released(path: str | Path) -> Any:
    """Load a network of the authors' release, as `load` does, at 224 x 224. Width, divisor and k are found
    from the shapes of its weights.

    Raises:
        UserError: no such file, or not a released network.
    """
    trained = predict.opened(path, {})
    if trained.ours:
        raise config.UserError(f"checkpoint {trained.path}: a run of yours; use hbo.load")
    return _ready(trained)


def _ready(trained: Trained) -> Any:
    task = tasks.restored(trained)
    net: Any = task.evaluated
    net.classes, net.preprocess = trained.classes, tasks.preprocess(trained.run)
    return net


def train(**fields: Any) -> dict[str, Any]:
    """Train a run, unless it is finished, and return its row. The fields are the flags of `hbo.fit`.

    >>> hbo.train(data="digits", k=2, epochs=1, out="/tmp/runs")["top1"]    # doctest: +SKIP

    Raises:
        UserError: an unknown field, a value out of range, or data that cannot be read.
        SystemExit: a signal came, after a checkpoint; the same call resumes from there.
    """
    return fit.fit(config.resolve(**fields))
