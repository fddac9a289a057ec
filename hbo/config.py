"""All that makes a run: its fields, what they must hold, its identity, and the key under which it is kept.

resolve(k=2) -> Run        defaults <- recipe of the data set <- what is given
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

import yaml

from hbo import files, nets
from hbo.block import Block
from hbo.errors import UserError
from hbo.fields import Machine, Network, Training
from hbo.tasks import SETS, TASKS, check_folder, idle, task_of
from hbo.tasks.classify.spec import ClassifyFields
from hbo.tasks.detect.spec import DetectFields
from hbo.tasks.reid.spec import ReidFields
from hbo.tasks.spec import require
from hbo.values import field_types, shown, typed
from hbo.words import did_you_mean, other_name


@dataclass(frozen=True)
class Purpose:
    """What for."""

    task: Literal[tuple(TASKS)] = "classify"  # pyright: ignore
    """What is trained: an image classifier, SSD on the network's feature maps, or features to retrieve identities by. Left out: what the data set is for."""
    data: Literal[tuple(SETS)] = "elpv"  # pyright: ignore
    """Data set. elpv, digits and fake need no folder; the others want --data_dir. voc and vocfolder are for detection, market1501 and marketfolder for re-identification."""


@dataclass(frozen=True)
class Run(Machine, ReidFields, DetectFields, ClassifyFields, Training, Purpose, Network):
    """One training run, every value resolved. The defaults are the paper's ImageNet protocol; make one with `resolve`.

    Raises:
        UserError: a value out of range, with the reason.
    """

    # What makes the network, without and with what its task adds: a checkpoint and a table's line say it; the rest of an
    # identity is how it was trained.
    BACKBONE: ClassVar = (*(f.name for f in fields(Block)), "net", "first_stage", "width", "divisor")
    NETWORK: ClassVar = (*BACKBONE, "task", "head", "min_scale", "bn_neck")

    # What cannot change a result is not in the key. The folder of a data set is replaced by what it holds (`hbo.tasks.spec`).
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
        super().__post_init__()  # the types of all fields first: what follows compares
        for name in ("out", "data_dir", "cache_dir", "backbone_checkpoint"):
            if (path := getattr(self, name)) is not None:
                files.expanded(path, name)
        nets.check(self.net, block_of(self), self.width, self.divisor, self.first_stage)
        self._check_ranges()
        self._check_task()
        self._check_schedule()
        world = self.world
        require(self, "batch", self.batch // world >= 2, "batch norm needs at least 2 images a device")
        require(
            self,
            "batch",
            self.batch % world == 0,
            f"must be shared evenly by {world} devices: take {max(self.batch // world, 1) * world}",
        )

    def _check_ranges(self) -> None:
        """Refuse a number that no run can have."""
        for name in ("epochs", "batch", "devices", "num_nodes", "threads"):
            require(self, name, getattr(self, name) >= 1, "must be at least 1")
        for name in ("warmup", "workers", "weight_decay", "seed", "checkpoint_every", "skip_bad"):
            require(self, name, (getattr(self, name) or 0) >= 0, "must not be negative")
        for name in ("label_smoothing", "momentum"):
            require(self, name, 0 <= getattr(self, name) < 1, "must lie in [0, 1)")
        for name in ("limit_batches", "eval_resize"):
            require(self, name, getattr(self, name) is None or getattr(self, name) >= 1, "must be at least 1")
        require(self, "holdout", 0 <= self.holdout <= 0.5, "must lie in [0, 0.5]")
        require(self, "resolution", 32 <= self.resolution <= 2**16, "must be at least 32, and at most 65536")
        for name in ("epochs", "batch", "devices", "num_nodes", "threads", "workers", "limit_batches", "eval_resize"):
            require(self, name, (getattr(self, name) or 0) < 2**31, "must be less than 2**31")
        require(self, "seed", self.seed < 2**32, "must be less than 2**32")
        require(
            self,
            "eval_resize",
            (self.eval_resize or self.resolution) >= self.resolution,
            f"must be at least the resolution, {self.resolution}; the crop would reach past the image",
        )
        require(self, "lr", self.lr > 0, "must be positive")
        folder = re.fullmatch(r"\w[\w.+-]*", self.study) is not None
        require(self, "study", folder, "letters, digits, . + - and _ alone, as it names a folder")

    def _check_task(self) -> None:
        """Refuse a set that is not the task's, and a field that the task would ignore."""
        task = task_of(self.data)
        require(
            self, "task", self.task == task, f"data={self.data} is for {task}; take --data {', '.join(TASKS[self.task].sets)}"
        )
        for name in idle(self.task):
            unused = getattr(self, name) != getattr(Run, name)
            require(self, name, not unused, f"task={self.task} has no use for it; leave it out")
        TASKS[self.task].check(self)

    def _check_schedule(self) -> None:
        """Refuse a rate that cannot go as it is asked to."""
        require(self, "warmup", self.warmup < self.epochs, f"must be shorter than the {self.epochs} epochs")
        require(self, "nesterov", self.momentum > 0 or not self.nesterov, "needs a momentum")
        plain = self.optimizer == "sgd" or not self.nesterov
        require(self, "nesterov", plain, "is of SGD; take --optimizer sgd, or leave it out")
        require(self, "warmup_from", 0 <= self.warmup_from < self.lr, f"must lie in [0, lr), below {self.lr}")
        require(self, "warmup_from", self.warmup > 0 or not self.warmup_from, "needs a --warmup of some epochs")
        stepped = self.schedule == "step"
        require(self, "milestones", stepped == (self.milestones is not None), "belongs to schedule=step, which needs it")
        drops = self.drops
        require(self, "milestones", drops == sorted(set(drops)), "each must be later than the one before")
        require(self, "milestones", all(0 < d < self.epochs for d in drops), f"must lie within the {self.epochs} epochs")

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
        """Short side of the cached photographs where the cache changes pixels, else None."""
        return TASKS[self.task].adds(vars(self)).get("cached_side")

    def identity(self) -> dict[str, Any]:
        """All that can change the result, as JSON values: what `content` says, and what folder and file hold.

        `images`: the fingerprint of the data set's folder, absent where it is the published set. `backbone`: the digest of the
        checkpoint's file. Whether two rows are the same run, arm, cell or protocol is asked of this alone (`hbo.runs.identity`).

        Raises:
            UserError: the folder or the file is not there, or not laid out as it must be.
        """
        found = content({f.name: getattr(self, f.name) for f in fields(self)})
        images, _ = SETS[self.data].looked(self.data, self.data_dir)
        if images is not None:
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
    return found | TASKS[values["task"]].adds(values)


def key_of(identity: Mapping[str, Any]) -> str:
    """The key of a run of this identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]


def block_of(run: Block) -> Block:
    """The switches of the block alone."""
    return Block(**{f.name: getattr(run, f.name) for f in fields(Block)})


def resolve(**given: Any) -> Run:
    """A run from the fields given, the rest by the data set's recipe, else by the defaults.

    A given `width` or `net` without a `divisor` drops the recipe's divisor: it takes the published one. `match_macs` finds
    the width; `variant` is taken apart into the fields that it names.
    A network of a zoo has one width, so `width` and `divisor` are None.

    Raises:
        UserError: an unknown field or data set, or a value out of range.
    """
    given = {name: checked(name, value) for name, value in given.items()}
    if given.get("variant") is not None:
        given = _together(given)
    data = given.get("data") or next((n for n in (Run.data, *SETS) if task_of(n) == given.get("task")), Run.data)
    check_folder(data, given.get("data_dir"), given.get("skip_bad"))
    task = TASKS[task_of(data)]
    own = task.recipe(SETS[data].recipe, given)
    values: dict[str, Any] = {"data": data} | own | given
    if {"width", "net"} & given.keys() and "divisor" not in given:
        values.pop("divisor", None)
    net = values.get("net", Run.net)
    if "resolution" in given and "eval_resize" not in given and "eval_resize" in own:
        values["eval_resize"] = given["resolution"]  # the recipe evaluates on the whole image, at any resolution
    if values.get("match_macs") is not None:
        values |= _matched(values, given)
    elif net in nets.TABLES:
        width = values.get("width", Run.width)
        values["width"] = 1.0 if width is None else width
        if values.get("divisor") is None and values["width"] > 0:
            values["divisor"] = nets.published_divisor(net, values["width"])
    else:
        if given.get("width") is not None or given.get("divisor") is not None:
            raise UserError(f"width, divisor: {net} comes in one width; leave them out")
        values |= {"width": None, "divisor": None}
    if "eval_resize" not in values or values["eval_resize"] is None:
        values["eval_resize"] = round(values.get("resolution", Run.resolution) / task.evaluated)
    if "milestones" not in given and "milestones" in own:
        values["milestones"] = _scaled(own, values)
    values |= task.settle(values, given)
    return Run(**values)


def checked(name: Any, value: Any) -> Any:
    """A field's value in the field's type.

    Raises:
        UserError: no such field, or a value of another type.
    """
    kinds = field_types(Run)
    if name not in kinds:
        raise UserError(
            f"{shown(name) if not isinstance(name, str) else name}: no such field{other_name(str(name), list(kinds))}"
        )
    if name == "milestones" and type(value) in (int, float):
        value = str(value)  # YAML has one of them as a number
    return typed(name, kinds[name], value)


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
    known = [f.name for f in fields(Run) if f.name != "variant"]
    named: dict[str, Any] = {}
    for word in str(given["variant"]).split():
        name, equals, text = word.partition("=")
        if not equals or name not in known or name in named:
            raise UserError(
                f"variant={given['variant']!r}: {word!r} must be NAME=VALUE, each field once{did_you_mean(name, known)}"
            )
        named[name] = checked(name, text)
        if name in given and given[name] != named[name]:
            raise UserError(f"{name}={given[name]!r}: variant={given['variant']!r} says {named[name]!r}; give one of them")
    return given | named


def _matched(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The width, and its divisor, at which the network has `match_macs` million multiply-adds."""
    from hbo.nets.size import width_for  # torch's counter, for a third of a second

    net, macs = values.get("net", Run.net), values["match_macs"]
    if net not in nets.TABLES:
        raise UserError(f"match_macs={macs}: {net} comes in one width; leave it out")
    if macs <= 0:
        raise UserError(f"match_macs={macs}: must be positive, in millions")
    block = Block(**{f.name: values[f.name] for f in fields(Block) if f.name in values})
    stage, divisor = values.get("first_stage", Run.first_stage), given.get("divisor") or 2
    nets.check(net, block, None, divisor, stage)
    width, _ = width_for(macs, net, block, divisor, stage)
    if given.get("width") not in (None, width):
        raise UserError(f"width={given['width']}: match_macs={macs:g} takes {width}; give one of them")
    return {"width": width, "divisor": divisor}


def to_yaml(run: Run) -> str:
    """Flat YAML that `--config` reads back."""
    return yaml.safe_dump(asdict(run), sort_keys=False)


def describe_net(run: Run) -> str:
    """The network and its switches in a line."""
    switches = ", ".join(f"{name}={value}" for name, value in asdict(block_of(run)).items())
    has_block = run.net in nets.TABLES and any(row.block == "hb" for row in nets.table_of(run.net, run.first_stage).stages)
    size = f", width {run.width}, divisor {run.divisor}" if run.width else ""
    return f"{run.net}{size}" + f", {switches}" * has_block
