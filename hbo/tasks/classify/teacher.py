"""Distillation: a trained network's outputs as targets beside the labels (Hinton, Vinyals, Dean 2015).

The loss is (1 - w) * cross-entropy + w * T^2 * KL(teacher || network), both softmaxes at a temperature of T.
T^2 keeps the size of the gradient independent of T (section 2 of that paper).
"""

import sys
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hbo import config, files, nets
from hbo.config import Run
from hbo.errors import UserError
from hbo.runs import checkpoint


def distilled(
    logits: Float[Tensor, "b classes"], teachers: Float[Tensor, "b classes"], temperature: float
) -> Float[Tensor, ""]:
    """T^2 times the divergence between the teacher's and the network's softened
    probabilities, averaged over images.
    """
    own, wanted = (F.log_softmax(x.float() / temperature, dim=1) for x in (logits, teachers))
    return temperature**2 * F.kl_div(own, wanted, log_target=True, reduction="batchmean")


class Teacher:
    """The teacher that `distill` names, in evaluation mode and without gradients; it sees the same augmented
    images as the network.

    It is not an nn.Module, so that it does not become part of the task that holds it.

    Args:
        run: the run to train.
        num_classes: of its data set.
        classes: names, in the order of the outputs; None if unknown.

    Raises:
        UserError: no such file, a checkpoint of another task, or other classes.
    """

    def __init__(self, run: Run, num_classes: int, classes: list[str] | None = None) -> None:
        name = str(run.distill)
        with torch.random.fork_rng(devices=[]):  # later draws must not depend on the teacher
            zoo = name.partition(":")[0] in nets.ZOOS
            net, words, theirs, number = _of_zoo(run) if zoo else _of_file(name)
        if theirs is not None and classes is not None and theirs != list(classes):
            raise UserError(
                f"distill={name}: has other classes than {run.data}: {_odd(theirs, list(classes))}; use a"
                f" teacher trained on the same ones"
            )
        if number != num_classes:
            raise UserError(
                f"distill={name}: has {number} classes, {run.data} has {num_classes}; use a teacher trained"
                " on"
                f" the same ones"
            )
        if theirs is None and run.data != "imagenet":
            print(
                f"warning: distill={name}: has no class names; only the number of classes could be compared",
                file=sys.stderr,
            )
        self.words = f"{words} ({files.checkpoint_digest(str(run.teacher_file()), 'distill')})"
        order: Any = torch.channels_last if run.channels_last else torch.contiguous_format
        self.net: nn.Module = net.eval().requires_grad_(False).to(memory_format=order)  # pyright: ignore

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Logits of normalised images, on their device."""
        self.net.to(images.device)  # moves once, at the first batch
        return self.net(images)


def _of_zoo(run: Run) -> tuple[nn.Module, str, None, int]:
    """A zoo's network with its published ImageNet weights."""
    net = nets.build(str(run.distill), width=None)
    one = config.resolve(data="imagenet", net=run.distill, weights="default", download=run.download)
    checkpoint.load_backbone(net, one)
    return net, f"{run.distill}, as published", None, 1000


def _of_file(name: str) -> tuple[nn.Module, str, list[str] | None, int]:
    """A classifier of ours or of the authors' release: network, description, class
    names if known, and their number.
    """
    from hbo.tasks import build

    path = files.located(name)
    if not path.is_file():
        raise UserError(f"distill={name}: no such file")
    trained = checkpoint.network(path, {})
    of = trained.run
    if of.task != "classify":
        raise UserError(f"distill={name}: trained with task={of.task}; use a classifier")
    words = (
        f"{of.net} trained on {of.data}, {checkpoint.trained_for(trained.content)}, seed {of.seed}"
        if trained.ours
        else "the authors' release"
    )
    return build.restored(trained).evaluated, words, trained.classes, trained.num_classes


def _odd(theirs: list[str], own: list[str]) -> str:
    """The first difference between two lists of classes."""
    if odd := next((name for name in theirs if name not in own), None):
        return f"it has {odd!r}"
    odd = next((name for name in own if name not in theirs), None)
    return f"it lacks {odd!r}" if odd else "in another order"
