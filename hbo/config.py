"""All that makes a run: its fields, what they must hold, and the key under which a run is kept.

resolve(k=2) -> Run        defaults <- recipe of the data set <- what is given
"""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

from torch import nn

from hbo import files, layouts, nets
from hbo.block import Block, check_choices
from hbo.errors import UserError
from hbo.recipes import ONLY, RECIPES, DataName, task_of


@dataclass(frozen=True)
class Run(Block):
    """One training run, every value resolved. The defaults are the paper's ImageNet protocol; make one with `resolve`.

    Raises:
        UserError: a value out of range, with the reason.
    """

    net: str = "hbonet"
    """Network: hbonet, hbonet_ir (inverted residuals in its place), mobilenetv2, mobilenetv2_hbo (ours in its place), or torchvision:NAME, timm:NAME, pytorchcv:NAME."""
    first_stage: nets.FirstStage = "release"
    """hbonet's first stage: an inverted residual as released, or a harmonious bottleneck as printed in table 1."""
    width: float | None = 0.25
    """Width multiplier of every stage."""
    divisor: int | None = None
    """Channels are multiples of it. Left out: the published one for this net and width; 2 with match_macs."""
    match_macs: float | None = None
    """Find the width that comes nearest to so many million multiply-adds, counted at 224 x 224 and 1000 classes as the paper does, whatever the data set. Refused where 3 % cannot be met."""

    task: Literal["classify", "detect", "reid"] = "classify"
    """What is trained: an image classifier, SSD on the network's feature maps, or features to retrieve identities by. Left out: what the data set is for."""
    data: DataName = "elpv"
    """Data set. elpv, digits and fake need no folder; the others want --data_dir. voc and vocfolder are for detection, market1501 and marketfolder for re-identification."""
    data_dir: str | None = None
    """Folder of the data set; for imagenet and imagefolder the one that holds train/ and val/; for voc the VOCdevkit, for vocfolder one that holds Annotations/, JPEGImages/ and ImageSets/; for market1501 and marketfolder one that holds bounding_box_train/, query/ and bounding_box_test/."""
    download: bool = False
    """Allow cifar10, cifar100 and imagenette to be downloaded into --data_dir."""
    cache: Literal["none", "ram", "disk"] = "none"
    """Keep the images decoded in one file that all workers and runs share: disk in --cache_dir, ram in /dev/shm; until it is deleted."""
    cache_dir: str | None = None
    """Folder of --cache disk. Left out: $XDG_CACHE_HOME/hbo, or ~/.cache/hbo."""
    cache_size: int | None = None
    """Short side of the cached photographs that random-resized crops are cut from. Left out: eval_resize. Larger ones keep more detail in small crops."""
    holdout: float = 0.0
    """Share of the training part that is held out and reported in place of the validation part: for tuning, in [0, 0.5]."""
    per_class: int | None = None
    """At most so many training images of each class, the same for every seed; more of them include fewer."""
    resolution: int = 224
    """Side of the square input in pixels, from 32; its height, to re-identify."""
    aspect: float = 1.0
    """reid: height of the input over its width."""
    eval_resize: int | None = None
    """Short side before the centre crop in evaluation. Left out: resolution / 0.875."""
    crop: Literal["random", "pad", "none"] = "random"
    """Training crops: random-resized as on ImageNet; a random shift by up to an eighth; or the whole image."""
    crop_area: float = 0.08
    """Least share of the image's area in a random-resized crop, in (0, 1]."""
    flip: Literal["none", "horizontal", "both"] = "horizontal"
    """Random flips in training; both: also upside down."""
    jitter: float = 0.0
    """Strength of a random change of brightness and contrast in training, in [0, 1)."""
    augment: Literal["loader", "device"] = "loader"
    """Where training's crops are resized, flipped and jittered: in the loader's processes, or on the device that trains, with the same draws."""

    head: Literal["separable", "full"] = "separable"
    """detect: the convolutions that predict classes and boxes: depthwise-separable as in SSDLite (table 8), or full 3x3."""
    min_scale: float = 0.2
    """detect: side of the smallest anchors, over the image's; the largest ones are 0.95. In (0, 0.9)."""
    ssd_augment: bool = True
    """detect: SSD's zoom-out, IoU crop and photometric distortion in training; false: the whole image. Flips are --flip."""
    backbone_checkpoint: str | None = None
    """detect, reid: start from the weights of a classifier of the same network: a run's folder or last.ckpt, a .pth of the authors' release, or of torchvision for its networks."""
    freeze_bn: bool = False
    """detect: keep the backbone's batch norm as the checkpoint has it."""

    classifier_epochs: int | None = None
    """reid: epochs in advance of the others in which the classifier alone is trained, on the backbone_checkpoint as it is. Left out: 10 with one; 0 without."""
    instances: int | None = None
    """reid: P x K sampling, K images of each of batch / K identities in a batch. Left out: all images in random order."""
    triplet: bool = False
    """reid: add the batch-hard triplet loss, of margin 0.3, to the cross-entropy; needs --instances."""
    bn_neck: bool = False
    """reid: a batch norm between the feature and its classifier; images are then retrieved by what it gives."""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """reid: distance by which the gallery is ranked."""

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
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: each class weighs the same in the loss, however many images it has."""
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

    # What makes the network, without and with what its task adds: a checkpoint and a table's line say it; the rest of an
    # identity is how it was trained.
    BACKBONE: ClassVar = (*(f.name for f in fields(Block)), "net", "first_stage", "width", "divisor")
    NETWORK: ClassVar = (*BACKBONE, "task", "head", "min_scale", "bn_neck")

    # What cannot change a result is not in the key. The folder of a data set is replaced by what it holds (`hbo.layouts`).
    NOT_IN_KEY: ClassVar = frozenset(
        [
            "data_dir",
            "backbone_checkpoint",  # what the file holds is
            "download",
            "cache",  # where it changes pixels, `cached_side` is
            "cache_dir",
            "cache_size",
            "accelerator",
            "strategy",
            "workers",
            "threads",
            "out",
            "study",
            "wandb",
            "project",
            "checkpoint_every",
            "force",
            "devices",
            "num_nodes",
            "match_macs",  # the width that it finds is
            "variant",  # so are the fields that it names
        ]
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        nets.check(self.net, block_of(self), self.width, self.divisor, self.first_stage)
        for name in ("epochs", "batch", "devices", "num_nodes", "threads"):
            _require(self, name, getattr(self, name) >= 1, "must be at least 1")
        for name in ("warmup", "workers", "weight_decay", "seed", "checkpoint_every"):
            _require(self, name, (getattr(self, name) or 0) >= 0, "must not be negative")
        for name in ("label_smoothing", "jitter", "momentum"):
            _require(self, name, 0 <= getattr(self, name) < 1, "must lie in [0, 1)")
        for name in ("limit_batches", "eval_resize", "per_class", "cache_size"):
            _require(self, name, getattr(self, name) is None or getattr(self, name) >= 1, "must be at least 1")
        _require(self, "holdout", 0 <= self.holdout <= 0.5, "must lie in [0, 0.5]")
        _require(self, "resolution", self.resolution >= 32, "must be at least 32")
        _require(self, "seed", self.seed < 2**32, "must be less than 2**32")
        _require(
            self,
            "eval_resize",
            (self.eval_resize or self.resolution) >= self.resolution,
            f"must be at least the resolution, {self.resolution}; the crop would reach past the image",
        )
        _require(
            self,
            "cache_size",
            self.cache_size is None or self.cached_side is not None,
            "is of the photographs that random-resized crops are cut from: it needs --cache ram or disk, --crop random and a folder of images",
        )
        _require(self, "lr", self.lr > 0, "must be positive")
        _require(self, "crop_area", 0 < self.crop_area <= 1, "must lie in (0, 1]")
        _require(self, "warmup", self.warmup < self.epochs, f"must be shorter than the {self.epochs} epochs")
        _require(self, "nesterov", self.momentum > 0 or not self.nesterov, "needs a momentum")
        _require(
            self, "nesterov", self.optimizer == "sgd" or not self.nesterov, "is of SGD; take --optimizer sgd, or leave it out"
        )
        _require(
            self,
            "study",
            re.fullmatch(r"\w[\w.+-]*", self.study) is not None,
            "letters, digits, . + - and _ alone, as it names a folder",
        )
        self._check_task()
        _require(self, "warmup_from", 0 <= self.warmup_from < self.lr, f"must lie in [0, lr), below {self.lr}")
        _require(self, "warmup_from", self.warmup > 0 or not self.warmup_from, "needs a --warmup of some epochs")
        stepped = self.schedule == "step"
        _require(self, "milestones", stepped == (self.milestones is not None), "belongs to schedule=step, which needs it")
        drops = self.drops
        _require(self, "milestones", drops == sorted(set(drops)), "each must be later than the one before")
        _require(self, "milestones", all(0 < d < self.epochs for d in drops), f"must lie within the {self.epochs} epochs")
        world = self.world
        _require(self, "batch", self.batch // world >= 2, "batch norm needs at least 2 images a device")
        _require(
            self,
            "batch",
            self.batch % world == 0,
            f"must be shared evenly by {world} devices: take {max(self.batch // world, 1) * world}",
        )

    def _check_task(self) -> None:
        """Refuse a field that the task would ignore.

        Raises:
            UserError: naming the field.
        """
        task = task_of(self.data)
        alike = ", ".join(name for name in RECIPES if task_of(name) == self.task)
        _require(self, "task", self.task == task, f"data={self.data} is for {task}; take --data {alike}")
        for name, tasks in ONLY.items():
            idle = self.task not in tasks and getattr(self, name) != getattr(Run, name)
            _require(self, name, not idle, f"task={self.task} has no use for it; leave it out")
        if self.task == "reid":
            self._check_reid()
        if self.task == "detect":
            _require(self, "eval_resize", self.eval_resize in (None, self.resolution), "detection takes the whole image")
            _require(self, "compile", not self.compile, "not for detection, whose feature maps are taken by hooks")
            _require(self, "min_scale", 0 < self.min_scale < 0.9, "must lie in (0, 0.9)")
            fresh = self.freeze_bn and self.backbone_checkpoint is None
            _require(self, "freeze_bn", not fresh, "needs a --backbone_checkpoint: fresh batch norm has no statistics to keep")

    def _check_reid(self) -> None:
        _require(self, "eval_resize", self.eval_resize in (None, self.resolution), "re-identification takes the whole image")
        wide = self.aspect > 0 and self.size[1] >= 16
        _require(self, "aspect", wide, f"the width, resolution={self.resolution} over it, must be at least 16")
        early, k = self.classifier_epochs or 0, self.instances
        _require(self, "classifier_epochs", early >= 0, "must not be negative")
        fresh = early > 0 and self.backbone_checkpoint is None
        _require(self, "classifier_epochs", not fresh, "needs a --backbone_checkpoint: a fresh backbone has to be trained")
        _require(self, "instances", k is None or k >= 2, "must be at least 2")
        shared = self.batch // self.world
        whole = k is None or (shared % k == 0 and shared >= 2 * k)
        _require(
            self, "instances", whole, f"the {shared} images of a batch on a device must be so many of 2 identities or more"
        )
        _require(self, "triplet", k is not None or not self.triplet, "needs --instances 2 or more: an anchor wants a positive")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.resolution, round(self.resolution / self.aspect)

    @property
    def all_epochs(self) -> int:
        """`epochs`, and those in advance that train the classifier alone."""
        return self.epochs + (self.classifier_epochs or 0)

    @property
    def drops(self) -> list[float]:
        """`milestones` as epochs.

        Raises:
            UserError: they are not numbers.
        """
        try:
            return [float(word) for word in (self.milestones or "").split(",") if self.milestones]
        except ValueError:
            raise UserError(
                f"milestones={self.milestones!r}: must be epochs with commas between them, such as 360,480"
            ) from None

    @property
    def world(self) -> int:
        """Processes, each with a device of its own."""
        return self.devices * self.num_nodes

    @property
    def cached_side(self) -> int | None:
        """See the function of that name."""
        return cached_side(vars(self))

    def identity(self) -> dict[str, Any]:
        """All that can change the result, as JSON values: what `content` says, and what folder and file hold.

        `images`: the fingerprint of the data set's folder, absent where it is the published set. `backbone`: the digest of the
        checkpoint's file. Whether two rows are the same run, arm, cell or protocol is asked of this alone (`hbo.identity`).

        Raises:
            UserError: the folder or the file is not there, or not laid out as it must be.
        """
        found = content({f.name: getattr(self, f.name) for f in fields(self)})
        if (images := layouts.fingerprint(self.data, self.data_dir)) is not None:
            found["images"] = images
        if self.backbone_checkpoint:
            found["backbone"] = files.checkpoint_digest(self.backbone_checkpoint)
        return found

    def key(self) -> str:
        """Ten hexadecimal digits: a hash of the identity."""
        return key_of(self.identity())


def content(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an identity that fields say: those that differ from their defaults, the processes, and what a cache changes.

    Defaults are left out, so that a new field with a neutral default keeps every finished run's key.
    """
    own = [f.name for f in fields(Run) if f.name not in Run.NOT_IN_KEY]
    found = {name: values[name] for name in own if values[name] != getattr(Run, name)}
    found["world"] = values["devices"] * values["num_nodes"]  # batch norm sees batch / world images
    if (side := cached_side(values)) is not None:
        found["cached_side"] = side
    return found


def key_of(identity: Mapping[str, Any]) -> str:
    """The key of a run of this identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]


def cached_side(values: Mapping[str, Any]) -> int | None:
    """Short side of the cached photographs, where random-resized crops are cut from them; elsewhere a cache changes no pixel."""
    photographs = values["data"] in ("imagenet", "imagefolder", "imagenette")
    if values["cache"] == "none" or values["crop"] != "random" or not photographs:
        return None
    return values["cache_size"] or values["eval_resize"] or values["resolution"]


def _require(run: Run, name: str, holds: bool, reason: str) -> None:
    if not holds:
        raise UserError(f"{name}={getattr(run, name)}: {reason}")


def block_of(run: Block) -> Block:
    """The switches of the block alone."""
    return Block(**{f.name: getattr(run, f.name) for f in fields(Block)})


def build_net(run: Run, num_classes: int) -> nn.Module:
    """The run's network, with fresh weights; to detect, SSD on top of it; to re-identify, without its classifier."""
    net = nets.build(run.net, block_of(run), run.width, run.divisor, num_classes, run.first_stage)
    if run.task == "detect":
        from hbo.ssd import Detector

        return Detector(net, num_classes, run.head, run.resolution, run.min_scale)
    if run.task == "reid":
        from hbo.embedding import Embedding

        return Embedding(net, run.bn_neck)
    return net


def resolve(**given: Any) -> Run:
    """A run from the fields given, the rest by the data set's recipe, else by the defaults.

    A given `width` or `net` without a `divisor` drops the recipe's divisor: it takes the published one. `match_macs` finds
    the width; `variant` is taken apart into the fields that it names.
    A network of a zoo has one width, so `width` and `divisor` are None.

    Raises:
        UserError: an unknown field or data set, or a value out of range.
    """
    known = [f.name for f in fields(Run)]
    for name in given:
        if name not in known:
            raise UserError(f"{name}: no such field{did_you_mean(name, known)}")
    if given.get("variant") is not None:
        given = _together(given)
    data = given.get("data") or next((n for n in (Run.data, *RECIPES) if task_of(n) == given.get("task")), Run.data)
    if data not in RECIPES:
        raise UserError(f"data={data!r}: choose from {', '.join(RECIPES)}{did_you_mean(str(data), list(RECIPES))}")
    own = recipe(data, given)
    values: dict[str, Any] = {"data": data} | own | given
    if {"width", "net"} & given.keys() and "divisor" not in given:
        values.pop("divisor", None)
    net = values.get("net", Run.net)
    if "resolution" in given and "eval_resize" not in given and "eval_resize" in RECIPES[data]:
        values["eval_resize"] = given["resolution"]  # the recipe evaluates on the whole image, at any resolution
    if values.get("match_macs") is not None:
        values |= _matched(values, given)
    elif net in nets.TABLES:
        width = values.get("width", Run.width)
        values["width"] = 1.0 if width is None else width
        if values.get("divisor") is None and isinstance(values["width"], (int, float)) and values["width"] > 0:
            values["divisor"] = nets.published_divisor(net, values["width"])
    else:
        if given.get("width") is not None or given.get("divisor") is not None:
            raise UserError(f"width, divisor: {net} comes in one width; leave them out")
        values |= {"width": None, "divisor": None}
    if "eval_resize" not in values or values["eval_resize"] is None:
        whole = 0.875 if task_of(data) == "classify" else 1
        values["eval_resize"] = round(values.get("resolution", Run.resolution) / whole)
    if "milestones" not in given and "milestones" in own:
        values["milestones"] = _scaled(own, values)
    if task_of(data) == "reid" and values.get("classifier_epochs") is None:
        values["classifier_epochs"] = 10 if values.get("backbone_checkpoint") else 0
    if values.get("milestones") is not None:
        values["milestones"] = str(values["milestones"])  # YAML has one of them as a number
    for field in fields(Run):  # 1 and 1.0 are one value, and one key
        if field.type in (float, float | None) and type(values.get(field.name)) is int:
            values[field.name] = float(values[field.name])
    run = Run(**values)
    check_choices(run)
    return run


def recipe(data: str, given: dict[str, Any]) -> dict[str, Any]:
    """What the data set changes of the defaults; table 9 trains a width of 1.0 for 30 epochs more, at their end."""
    own = RECIPES[data]
    if task_of(data) == "reid" and given.get("net", Run.net) in nets.TABLES and given.get("width", Run.width) in (1.0, None):
        return own | {"epochs": own["epochs"] + 30}
    return own


def _scaled(recipe: dict[str, Any], values: dict[str, Any]) -> str | None:
    """The recipe's milestones, at the same shares of other epochs; none where the rate is not stepped."""
    if values["schedule"] != "step":
        return None
    share = values["epochs"] / recipe["epochs"]
    return ",".join(f"{float(epoch) * share:g}" for epoch in recipe["milestones"].split(","))


def _together(given: dict[str, Any]) -> dict[str, Any]:
    """The fields that `variant` names, beside the others.

    Raises:
        UserError: it is not NAME=VALUE NAME=VALUE, or contradicts what is given otherwise.
    """
    import yaml

    known = [f.name for f in fields(Run) if f.name != "variant"]
    named: dict[str, Any] = {}
    for word in str(given["variant"]).split():
        name, equals, text = word.partition("=")
        if not equals or name not in known or name in named:
            raise UserError(
                f"variant={given['variant']!r}: {word!r} must be NAME=VALUE, each field once{did_you_mean(name, known)}"
            )
        named[name] = yaml.safe_load(text)
        if name in given and given[name] != named[name]:
            raise UserError(f"{name}={given[name]!r}: variant={given['variant']!r} says {named[name]!r}; give one of them")
    return given | named


def _matched(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The width, and its divisor, at which the network has `match_macs` million multiply-adds."""
    from hbo.size import width_for

    net, macs = values.get("net", Run.net), values["match_macs"]
    if net not in nets.TABLES:
        raise UserError(f"match_macs={macs}: {net} comes in one width; leave it out")
    if not isinstance(macs, (int, float)) or macs <= 0:
        raise UserError(f"match_macs={macs}: must be positive, in millions")
    block = Block(**{f.name: values[f.name] for f in fields(Block) if f.name in values})
    stage, divisor = values.get("first_stage", Run.first_stage), given.get("divisor") or 2
    nets.check(net, block, None, divisor, stage)
    width, _ = width_for(float(macs), net, block, divisor, stage)
    if given.get("width") not in (None, width):
        raise UserError(f"width={given['width']}: match_macs={macs:g} takes {width}; give one of them")
    return {"width": width, "divisor": divisor}


def did_you_mean(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def to_yaml(run: Run) -> str:
    """Flat YAML that `--config` reads back."""
    import yaml

    return yaml.safe_dump(asdict(run), sort_keys=False)


def describe_net(run: Run) -> str:
    """The network and its switches in a line."""
    switches = ", ".join(f"{name}={value}" for name, value in asdict(block_of(run)).items())
    has_block = run.net in nets.TABLES and any(row.block == "hb" for row in nets.table_of(run.net, run.first_stage).stages)
    size = f", width {run.width}, divisor {run.divisor}" if run.width else ""
    return f"{run.net}{size}" + f", {switches}" * has_block
