"""The fields that all tasks share, each a flag; a task's own are in its spec.py, the block's in block.py."""

from dataclasses import dataclass
from typing import Literal

from hbo.block import Block
from hbo.nets import FirstStage


@dataclass(frozen=True)
class Network(Block):
    """What is trained."""

    net: str = "hbonet"
    """Network: hbonet, hbonet_ir (inverted residuals in its place), mobilenetv2, mobilenetv2_hbo (ours in its place), or torchvision:NAME, timm:NAME, pytorchcv:NAME."""
    first_stage: FirstStage = "release"
    """hbonet's first stage: an inverted residual as released, or a harmonious bottleneck as printed in table 1."""
    width: float | None = 0.25
    """Width multiplier of every stage."""
    divisor: int | None = None
    """Channels are multiples of it. Left out: the published one for this net and width; 2 with match_macs."""
    match_macs: float | None = None
    """Find the width that comes nearest to so many million multiply-adds, counted at 224 x 224 and 1000 classes as the paper does, whatever the data set. Refused where 3 % cannot be met."""


@dataclass(frozen=True)
class Training:
    """On what, and how."""

    data_dir: str | None = None
    """Folder of the data set; for imagenet and imagefolder the one that holds train/ and val/; for voc the VOCdevkit, for vocfolder one that holds Annotations/, JPEGImages/ and ImageSets/; for market1501 and marketfolder one that holds bounding_box_train/, query/ and bounding_box_test/."""
    download: bool = False
    """Allow cifar10, cifar100 and imagenette to be downloaded into --data_dir."""
    cache: Literal["none", "ram", "disk"] = "none"
    """Keep the images decoded in one file that all workers and runs share: disk in --cache_dir, ram in /dev/shm; until it is deleted."""
    cache_dir: str | None = None
    """Folder of --cache disk. Left out: $XDG_CACHE_HOME/hbo, or ~/.cache/hbo."""
    skip_bad: int = 0
    """Of a folder of images: decode all before training, and pass over at most so many that cannot be read; they are named in the row. 0: the first one ends the run."""
    holdout: float = 0.0
    """Share of the training part that is held out and reported in place of the validation part: for tuning, in [0, 0.5]."""
    resolution: int = 224
    """Side of the square input in pixels, from 32; its height, to re-identify."""
    eval_resize: int | None = None
    """Short side before the centre crop in evaluation. Left out: resolution / 0.875."""
    flip: Literal["none", "horizontal", "both"] = "horizontal"
    """Random flips in training; both: also upside down."""
    backbone_checkpoint: str | None = None
    """detect, reid: start from the weights of a classifier of the same network: a run's folder or last.ckpt, a .pth of the authors' release, or of torchvision for its networks."""
    epochs: int = 150
    """Passes over the training images."""
    batch: int = 256
    """Images an update, over all devices together; they share it evenly."""
    optimizer: Literal["sgd", "amsgrad"] = "sgd"
    """SGD with momentum; or AMSGrad, whose second beta is 0.999."""
    lr: float = 0.05
    """Peak learning rate."""
    momentum: float = 0.9
    """Momentum of SGD, first beta of AMSGrad."""
    nesterov: bool = False
    """Nesterov's momentum."""
    weight_decay: float = 4e-5
    """Weight decay on every weight."""
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    """Learning rate after the warm-up: cosine to zero, an update each iteration; constant; or divided by 10 at each of the milestones."""
    milestones: str | None = None
    """Epochs at which schedule=step divides the rate, such as 360,480. A recipe's are scaled with --epochs."""
    warmup: float = 0.0
    """Epochs of linear warm-up."""
    warmup_from: float = 0.0
    """Learning rate at which the warm-up starts."""
    label_smoothing: float = 0.0
    """Label smoothing, in [0, 1)."""
    seed: int = 0
    """Seed of weights, order and augmentation: one seed, the same images in the same order for every network."""
    limit_batches: int | None = None
    """At most so many batches an epoch, in training and in evaluation."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    """Arithmetic, as Lightning names it."""
    channels_last: bool = True
    """Keep feature maps in channels-last order, the faster one."""
    compile: bool = False
    """torch.compile the network."""
    devices: int = 1
    """Devices a node; each is a process with its share of the batch."""
    num_nodes: int = 1
    """Nodes, each with as many devices."""


@dataclass(frozen=True)
class Machine:
    """Where, and under what name; none of it can change a result."""

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Where to train."""
    strategy: Literal["auto", "ddp"] = "auto"
    """auto: DDP where there is more than one device."""
    workers: int | None = None
    """Processes that load images; any number gives the same images. Left out: the cores left over, at most 8; 0 where the set is in memory."""
    threads: int = 2
    """Threads of a training process on the CPU. Same bits at same threads."""
    out: str = "runs"
    """Folder of all studies."""
    study: str = "default"
    """Study that the run belongs to: OUT/STUDY/KEY/."""
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Weights & Biases. auto: online where a key is set up, else offline; it never asks."""
    project: str = "hbo"
    """W&B project."""
    checkpoint_every: float = 120.0
    """Seconds between checkpoints within an epoch; there is one at each epoch's end besides."""
    force: bool = False
    """Run again what is finished; the former run is moved aside."""
    variant: str | None = None
    """Fields that go together, as in "net=hbonet width=0.5 divisor=2": for the rows of a sweep that are no full grid."""
