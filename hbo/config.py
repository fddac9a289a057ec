"""A run's settings: its fields, its identity, and the key of its folder.

resolve(k=2) -> Run        defaults <- recipe of the data set <- recipe by name <- what is given
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import yaml

from hbo import files, limits, nets
from hbo.block import Block
from hbo.errors import UserError
from hbo.fields import Machine, Network, Training
from hbo.nets import published
from hbo.tasks import SETS, TASKS, Purpose, backbone, check_folder, meant, task_of
from hbo.tasks.classify.spec import ClassifyFields
from hbo.tasks.detect.spec import DetectFields
from hbo.tasks.reid.spec import ReidFields
from hbo.values import field_types, shown, typed
from hbo.words import did_you_mean, other_name


@dataclass(frozen=True)
class Run(Machine, ReidFields, DetectFields, ClassifyFields, Training, Purpose, Network):
    """One training run, every value resolved. The defaults are the paper's ImageNet
    protocol; make one with `resolve`.

    Raises:
        UserError: a value out of range, with the reason.
    """

    # Fields that define the network, without and with its task's: stored in a checkpoint and shown in a
    # table's line. The rest of an identity is how it was trained.
    BACKBONE: ClassVar = (*(f.name for f in fields(Block)), "net", "first_stage", "width", "divisor")
    NETWORK: ClassVar = (*BACKBONE, "task", "head", "min_scale", "anchors", "strides", "bn_neck")

    # Fields that cannot change a result are not in the key. A data set's folder is replaced by its contents
    # (`hbo.tasks.spec`).
    NOT_IN_KEY: ClassVar = frozenset(
        [
            "data_dir",
            "backbone_checkpoint",  # the file's contents are
            "weights",  # the contents of their file are
            "download",
            "cache",  # if it changes pixels, `cached_side` is
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
            "log_every",
            "wandb_media",
            "checkpoint_every",
            "force",
            "eval_every",
            "devices",
            "num_nodes",
            "match_macs",  # the width that it finds is
            "variant",  # the fields that it names are
            "recipe",  # the fields that it sets are
            "distill",  # the contents of the teacher's file are
        ]
    )

    def __post_init__(self) -> None:
        super().__post_init__()  # types first: the checks below compare values
        for name in ("out", "data_dir", "cache_dir", "backbone_checkpoint", "distill"):
            if (path := getattr(self, name)) is not None:
                files.expanded(path, name)
        nets.check(self.net, block_of(self), self.width, self.divisor, self.first_stage)
        limits.check(self)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.resolution, round(self.resolution / self.aspect)

    @property
    def all_epochs(self) -> int:
        """`epochs`, plus the epochs before them that train only the classifier."""
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
                f"milestones={self.milestones!r}: must be epochs separated by commas, such as 360,480"
            ) from None

    @property
    def world(self) -> int:
        """Number of processes, each with its own device."""
        return self.devices * self.num_nodes

    @property
    def cached_side(self) -> int | None:
        """Short side of the cached photographs if the cache changes pixels, else None."""
        return TASKS[self.task].adds(vars(self)).get("cached_side")

    @property
    def pretrained(self) -> bool:
        """Whether the network starts from trained weights."""
        return self.backbone_checkpoint is not None or self.weights != Run.weights

    def start_file(self) -> str | None:
        """The file of the initial weights, or a run's folder; None if they are random.

        Raises:
            UserError: as `published.file` and `backbone.of_study`.
        """
        if self.weights != Run.weights:
            return str(published.file(self.net, self.download))
        network, usual = ({name: getattr(of, name) for name in self.BACKBONE} for of in (self, Run))
        return self.backbone_checkpoint and backbone.of_study(
            self.backbone_checkpoint, network, usual, self.seed
        )

    def backbone_arm(self) -> str | None:
        """What stands for the classifier of the run's own seed among several of a study: runs that differ in
        their seed, and so in that classifier's, are one arm. None where the file is the same for every seed.
        """
        if self.backbone_checkpoint is None:
            return None
        network, usual = ({name: getattr(of, name) for name in self.BACKBONE} for of in (self, Run))
        own = backbone.chosen_by_seed(self.backbone_checkpoint, network, usual, self.seed)
        return None if own is None else f"{key_of(own)} of the run's seed"

    def teacher_file(self) -> str | None:
        """The file of the teacher's weights, or a run's folder; None without a teacher.
        Raises as `published.file` does.
        """
        zoo = self.distill is not None and self.distill.partition(":")[0] in nets.ZOOS
        return str(published.file(self.distill or "", self.download, "distill")) if zoo else self.distill

    def identity(self) -> dict[str, Any]:
        """All that can change the result, as JSON values: `content`, and the contents of folders and files.

        `images`: the fingerprint of the data set's folder, absent for a published set. `backbone`,
        `teacher`: the digest of the checkpoint's file. Only the identity decides whether two rows are the
        same run, arm, cell or protocol (`hbo.runs.identity`).

        Raises:
            UserError: the folder or the file does not exist, or has the wrong layout.
        """
        found = content({f.name: getattr(self, f.name) for f in fields(self)})
        images, _ = SETS[self.data].looked(self.data, self.data_dir)
        if images is not None:
            found["images"] = images
        if start := self.start_file():
            found["backbone"] = files.checkpoint_digest(start)
        if teacher := self.teacher_file():
            found["teacher"] = files.checkpoint_digest(teacher, "distill")
        return found

    def key(self) -> str:
        """Ten hexadecimal digits: a hash of the identity."""
        return key_of(self.identity())


def content(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields' part of an identity: those that differ from their defaults, the number of processes, and
    the side of cached images.

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
    """A run from the given fields; the others come from the named recipe, the data
    set's recipe, or the defaults.

    If `width` or `net` is given without `divisor`, the published divisor replaces the recipe's.
    `match_macs` finds the width; `variant` is split into the fields that it names.
    A network of a zoo has one width, so `width` and `divisor` are None.

    Raises:
        UserError: an unknown field or data set, a value out of range, or one that another field switches off.
    """
    run, given, recipe = _resolved(given)
    limits.check_used(run, given, recipe)
    return run


def resolve_saved(**given: Any) -> Run:
    """The same of a row's or a checkpoint's fields: an older one may have a value that nothing used."""
    return _resolved(given)[0]


def _resolved(given: dict[str, Any]) -> tuple[Run, dict[str, Any], dict[str, Any]]:
    """The run, the given fields with those of `variant`, and the recipe."""
    given = {name: checked(name, value) for name, value in given.items()}
    if given.get("variant") is not None:
        given = _together(given)
    data = given.get("data") or meant(given.get("data_dir"), given.get("task"))
    data = data or next((n for n in (Run.data, *SETS) if task_of(n) == given.get("task")), Run.data)
    check_folder(data, given.get("data_dir"), given.get("skip_bad"), typed=given.get("data") is not None)
    task = TASKS[task_of(data)]
    own = task.recipe(SETS[data].recipe, {"data": data} | given)
    values: dict[str, Any] = {"data": data} | own | given
    if {"width", "net"} & given.keys() and "divisor" not in given:
        values.pop("divisor", None)
    net = values.get("net", Run.net)
    if "resolution" in given and "eval_resize" not in given and "eval_resize" in own:
        # The recipe evaluates on the whole image, at any resolution.
        values["eval_resize"] = given["resolution"]
    if values.get("match_macs") is not None:
        values |= _matched(values, given)
    elif net in nets.TABLES:
        width = values.get("width", Run.width)
        values["width"] = 1.0 if width is None else width
        if values.get("divisor") is None and values["width"] > 0:
            values["divisor"] = nets.published_divisor(net, values["width"])
    else:
        if given.get("width") is not None or given.get("divisor") is not None:
            raise UserError(f"width, divisor: {net} has a fixed width; remove them")
        values |= {"width": None, "divisor": None}
    if "eval_resize" not in values or values["eval_resize"] is None:
        values["eval_resize"] = round(values.get("resolution", Run.resolution) / task.evaluated)
    if given.get("warmup") == 0 and "warmup_from" not in given:
        values["warmup_from"] = 0.0  # the recipe's value belongs to its warm-up
    if "milestones" not in given and "milestones" in own:
        values["milestones"] = _scaled(own, values)
    values |= task.settle(values, given)
    return Run(**values), given, own


def as_saved(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a row or a checkpoint; a field added since gets its default, whatever a recipe says."""
    return {f.name: values.get(f.name, f.default) for f in fields(Run)}


def checked(name: Any, value: Any) -> Any:
    """Convert a value to its field's type.

    Raises:
        UserError: no such field, or a value of another type.
    """
    kinds = field_types(Run)
    if name not in kinds:
        raise UserError(
            f"{shown(name) if not isinstance(name, str) else name}: no such"
            f" field{other_name(str(name), list(kinds))}"
        )
    if name == "milestones" and type(value) in (int, float):
        value = str(value)  # a single one is a number in YAML
    return typed(name, kinds[name], value)


def _scaled(recipe: dict[str, Any], values: dict[str, Any]) -> str | None:
    """The recipe's milestones, scaled to the given epochs; empty unless schedule=step."""
    if values["schedule"] != "step":
        return None
    share = values["epochs"] / recipe["epochs"]
    return ",".join(f"{float(epoch) * share:g}" for epoch in recipe["milestones"].split(","))


def _together(given: dict[str, Any]) -> dict[str, Any]:
    """The given fields together with those that `variant` names.

    Raises:
        UserError: it is not NAME=VALUE NAME=VALUE, or contradicts another given field.
    """
    known = [f.name for f in fields(Run) if f.name != "variant"]
    named: dict[str, Any] = {}
    for word in str(given["variant"]).split():
        name, equals, text = word.partition("=")
        if not equals or name not in known or name in named:
            raise UserError(
                f"variant={given['variant']!r}: {word!r} must be NAME=VALUE, each field once"
                f"{did_you_mean(name, known)}"
            )
        named[name] = checked(name, text)
        if name in given and given[name] != named[name]:
            raise UserError(
                f"{name}={given[name]!r}: variant={given['variant']!r} says {named[name]!r}; give one of them"
            )
    return given | named


def _matched(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The width, and its divisor, at which the network has `match_macs` million multiply-adds."""
    from hbo.nets.size import matched  # imports torch's counter: a third of a second

    block = Block(**{f.name: values[f.name] for f in fields(Block) if f.name in values})
    net, stage = values.get("net", Run.net), values.get("first_stage", Run.first_stage)
    divisor = given.get("divisor") or 2
    return {
        "width": matched(values["match_macs"], net, block, divisor, stage, given.get("width")),
        "divisor": divisor,
    }


def to_yaml(run: Run) -> str:
    """Flat YAML, which `--config` can read."""
    return yaml.safe_dump(asdict(run), sort_keys=False)


def describe_net(run: Run) -> str:
    """The network and its switches in a line."""
    switches = ", ".join(f"{name}={value}" for name, value in asdict(block_of(run)).items())
    has_block = run.net in nets.TABLES and any(
        row.block == "hb" for row in nets.table_of(run.net, run.first_stage).stages
    )
    size = f", width {run.width}, divisor {run.divisor}" if run.width else ""
    return f"{run.net}{size}" + f", {switches}" * has_block
