"""Fields that all tasks share, each a flag; a task's own are in its spec.py, the block's in block.py."""

from dataclasses import dataclass
from typing import Literal

from hbo.block import Block
from hbo.nets import FirstStage


@dataclass(frozen=True)
class Network(Block):
    """Network."""

    net: str = "hbonet"
    """Network: hbonet, hbonet_ir (HBONet with inverted residuals), mobilenetv2, mobilenetv2_hbo (MobileNetV2
    with harmonious bottlenecks), or torchvision:NAME, timm:NAME, pytorchcv:NAME."""
    first_stage: FirstStage = "release"
    """hbonet's first stage: an inverted residual (release), or a harmonious bottleneck (table 1)."""
    width: float | None = 0.25
    """Width multiplier of every stage."""
    divisor: int | None = None
    """Channels are multiples of it. Default: the published one for this net and width; 2 with match_macs."""
    match_macs: float | None = None
    """Find the width nearest to this many million multiply-adds, counted at 224 x 224 and 1000 classes as in
    the paper, whatever the data set. An error if no width is within 3 %."""


@dataclass(frozen=True)
class Data:
    """Images: where they are, and how they are read."""

    data_dir: str | None = None
    """Folder of the data set. imagenet, imagefolder: contains train/ and val/, or train-*.tar and val-*.tar,
    or parquet; imagefolder also one folder per class (with --val_split), or a CSV of path,label[,split]. voc:
    the VOCdevkit; vocfolder: VOC's XML; detectfolder: VOC's XML, COCO's JSON or YOLO's data.yaml. market1501,
    marketfolder: contains bounding_box_train/, query/ and bounding_box_test/; marketfolder also VeRi-776's or
    MSMT17's layout."""
    download: bool = False
    """Allow downloads: cifar10, cifar100 and imagenette into --data_dir, --weights default
    into the zoo's own folder."""
    cache: Literal["none", "ram", "disk", "jpeg"] = "none"
    """Keep decoded images in one file, shared by all workers and runs: disk in --cache_dir, ram in /dev/shm.
    The file stays until you delete it. jpeg: the training photographs, smaller and as JPEG, in --cache_dir; a
    tenth as large, for random-resized crops alone."""
    cache_dir: str | None = None
    """Folder of --cache disk and jpeg. Default: $XDG_CACHE_HOME/hbo, or ~/.cache/hbo."""
    skip_bad: int = 0
    """For folders of images: decode all images before training and skip at most this many unreadable ones;
    the row names them. 0: the first unreadable image ends the run."""
    holdout: float = 0.0
    """Share of the training images held out for tuning, in [0, 0.5]; metrics are reported on them instead of
    on the validation images."""
    val_split: float = 0.0
    """For a folder without train/ and val/: share of the images used for validation, in [0, 0.5]."""
    resolution: int = 224
    """Side of the square input in pixels, at least 32; for reid its height."""
    eval_resize: int | None = None
    """Short side before the centre crop in evaluation. Default: resolution / 0.875."""
    flip: Literal["none", "horizontal", "both"] = "horizontal"
    """Random flips in training; both: also upside down."""


@dataclass(frozen=True)
class Training(Data):
    """Training."""

    backbone_checkpoint: str | None = None
    """Start from the weights of a classifier of the same network: a run's folder or last.ckpt,
    a study's folder (its classifier of that network), a .pth of the authors' release, or a
    zoo's own file for its networks."""
    classifier_epochs: int | None = None
    """classify, reid: epochs that train only the classifier, with the backbone frozen; they come before
    --epochs and are not counted in it. Default: 0; 10 for reid from a backbone_checkpoint."""
    freeze_bn: bool = False
    """classify, detect: keep the batch norm of the initial weights."""
    epochs: int = 150
    """Passes over the training images."""
    batch: int = 256
    """Images per update over all devices; divisible by their number."""
    eval_every: int = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    optimizer: Literal["sgd", "amsgrad", "adamw"] = "sgd"
    """SGD with momentum; AMSGrad; or AdamW, with decoupled weight decay. The second beta of both is 0.999."""
    lr: float = 0.05
    """Peak learning rate."""
    momentum: float = 0.9
    """Momentum of SGD, first beta of AMSGrad and AdamW."""
    nesterov: bool = False
    """Nesterov's momentum."""
    weight_decay: float = 4e-5
    """Weight decay on every weight."""
    no_decay_on_norm: bool = False
    """No weight decay on biases and on batch norm's scales and shifts."""
    grad_clip: float = 0.0
    """Clip the norm of all gradients to this value. 0: no clipping."""
    ema: float = 0.0
    """Evaluate an exponential moving average of the weights with this decay, in [0, 1); at update t the decay
    is at most (1 + t) / (10 + t). 0: evaluate the weights themselves."""
    schedule: Literal["cosine", "constant", "step", "exponential"] = "cosine"
    """Learning rate after the warm-up: cosine to zero, changed at every update; constant; step: divided by 10
    at each milestone; or exponential: times 0.98 after every 300th of the updates."""
    milestones: str | None = None
    """Epochs at which schedule=step divides the rate, such as 360,480; a recipe's scale with --epochs."""
    warmup: float = 0.0
    """Epochs of linear warm-up."""
    warmup_from: float = 0.0
    """Learning rate at which the warm-up starts."""
    label_smoothing: float = 0.0
    """Label smoothing, in [0, 1)."""
    seed: int = 0
    """Seed of weights, order and augmentation; the same seed gives every network the
    same images in the same order."""
    limit_batches: int | None = None
    """Maximum number of batches per epoch, in training and in evaluation; not for reid."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    """Arithmetic, as Lightning names it."""
    channels_last: bool = True
    """Keep feature maps in channels-last order, which is faster."""
    compile: bool = False
    """torch.compile the network."""
    devices: int = 1
    """Devices per node; each is a process with its share of the batch."""
    num_nodes: int = 1
    """Nodes, each with the same number of devices."""


@dataclass(frozen=True)
class Machine:
    """Machine, folders and names: in no run's key. Another number of threads can change the last bits."""

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Where to run."""
    strategy: Literal["auto", "ddp"] = "auto"
    """auto: DDP with more than one device."""
    workers: int | None = None
    """Processes that load images; any number gives the same images. Default: the idle cores, at most 8; 0 if
    the data set is in memory."""
    threads: int = 2
    """CPU threads of a process. The same number gives the same bits."""
    out: str = "runs"
    """Folder of all studies."""
    study: str = "default"
    """Study that the run belongs to: OUT/STUDY/KEY/."""
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Weights & Biases. auto: online if an API key is set up, else offline, without a prompt."""
    project: str = "hbo"
    """W&B project."""
    log_every: int = 0
    """Updates between W&B's points of loss, learning rate and images/s, besides each epoch's; 0: none."""
    wandb_media: bool = False
    """Send W&B a picture at the end: a classifier's most confident mistakes, detections, or ranked lists."""
    checkpoint_every: float = 120.0
    """Seconds between checkpoints within an epoch; there is also one at the end of each epoch."""
    force: bool = False
    """Repeat a finished run; the old folder is renamed."""
    variant: str | None = None
    """Fields that change together, such as "net=hbonet width=0.5 divisor=2": for sweeps
    that are not a full grid."""
