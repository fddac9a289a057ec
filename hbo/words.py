"""Unknown flags and values: suggest the right one, and a parser that reports errors in one line."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from hbo.errors import flat

# Another program's name -> the name here, or what to do instead.
SHORT = 8  # flags of a command that are all listed
NAMES = {
    "batch_size": "batch", "bs": "batch", "train_batch_size": "batch", "b": "batch",
    "learning_rate": "lr", "lr0": "lr", "base_lr": "lr", "init_lr": "lr",
    "model": "net", "arch": "net", "architecture": "net", "backbone": "net", "network": "net",
    "model_name": "net", "a": "net",
    "gpus": "devices", "gpu": "devices", "num_gpus": "devices", "ngpus": "devices", "n_gpus": "devices",
    "nproc_per_node": "devices",
    "nodes": "num_nodes", "nnodes": "num_nodes",
    "num_workers": "workers", "j": "workers", "num_epochs": "epochs", "max_epochs": "epochs",
    "n_epochs": "epochs",
    "dataset": "data", "data_set": "data", "data_path": "data_dir", "data_root": "data_dir",
    "root": "data_dir", "path": "data_dir", "dir": "data_dir",
    "wd": "weight_decay", "opt": "optimizer", "random_seed": "seed", "manual_seed": "seed",
    "img_size": "resolution", "image_size": "resolution", "imgsz": "resolution", "input_size": "resolution",
    "crop_size": "resolution",
    "lr_scheduler": "schedule", "scheduler": "schedule", "sched": "schedule", "lr_schedule": "schedule",
    "lr_policy": "schedule",
    "warmup_epochs": "warmup", "lr_steps": "milestones", "amp": "precision", "fp16": "precision",
    "half": "precision",
    "pretrained": "backbone_checkpoint", "pretrained_weights": "backbone_checkpoint",
    "output_dir": "out", "output": "out", "save_dir": "out", "log_dir": "out", "logdir": "out",
    "exp_name": "study", "experiment": "study",
    "wandb_project": "project", "width_mult": "width", "width_multiplier": "width", "alpha": "width",
    "smoothing": "label_smoothing",
    "teacher": "distill", "teacher_path": "distill", "temperature": "distill_temperature",
    "kd_temperature": "distill_temperature",
    "re_ranking": "rerank", "reranking": "rerank", "flip_test": "flip_features",
    "overwrite": "force", "log_wandb": "wandb", "use_wandb": "wandb", "upsampling": "upsample",
    "ratio": "concat_ratio",
    "format": "to", "runtime": "to", "target": "to",
}  # fmt: skip
INSTEAD = {
    "device": "use --accelerator cpu or gpu, and --devices for their number",
    "cpu": "use --accelerator cpu",
    "cuda": "use --accelerator gpu",
    "resume": "the same command resumes an unfinished run",
    "resume_from_checkpoint": "the same command resumes an unfinished run",
    "ckpt_path": "the same command resumes an unfinished run",
    "num_classes": "it comes from the data",
    "nb_classes": "it comes from the data",
    "classes": "they come from the data",
    "evaluate": "python -m hbo.evaluate RUN evaluates",
    "eval": "python -m hbo.evaluate RUN evaluates",
    "test": "python -m hbo.evaluate RUN evaluates",
    "local_rank": "--devices starts the processes",
    "distributed": "use --devices above 1",
    "export": "python -m hbo.export RUN exports",
    "version": "python -m hbo --version prints it",
}
OFF = {  # --no_FIELD -> the value that switches it off
    "residual": "false", "channels_last": "false", "compile": "false", "nesterov": "false",
    "download": "false",
    "freeze_bn": "false", "ssd_augment": "false", "bn_neck": "false", "flip": "none", "crop": "none",
    "cache": "none", "auto_augment": "none", "class_weights": "none", "wandb": "disabled", "warmup": "0",
}  # fmt: skip
# Another program's value: (field, value) -> the value here, or what to do instead.
VALUES = {
    ("wandb", "none"): "disabled", ("wandb", "off"): "disabled", ("wandb", "no"): "disabled",
    ("wandb", "false"): "disabled",
    ("wandb", "on"): "online", ("wandb", "yes"): "online", ("wandb", "true"): "online",
    ("wandb", "dryrun"): "offline",
    ("accelerator", "cuda"): "gpu", ("accelerator", "nvidia"): "gpu", ("accelerator", "rocm"): "gpu",
    ("accelerator", "metal"): "mps",
    ("data", "folder"): "imagefolder", ("data", "image_folder"): "imagefolder",
    ("data", "custom"): "imagefolder",
    ("data", "imagenet1k"): "imagenet", ("data", "imagenet-1k"): "imagenet",
    ("data", "ilsvrc2012"): "imagenet", ("data", "cifar"): "cifar10",
    ("data", "market"): "market1501", ("data", "pascal"): "voc", ("data", "voc2007"): "voc",
    ("optimizer", "adam"): "adamw",
    ("weights", "imagenet"): "default", ("weights", "pretrained"): "default", ("weights", "none"): "random",
    ("schedule", "cos"): "cosine", ("schedule", "multistep"): "step", ("schedule", "steplr"): "step",
    ("schedule", "none"): "constant",
    ("precision", "fp32"): "32-true", ("precision", "32"): "32-true", ("precision", "fp16"): "16-mixed",
    ("precision", "16"): "16-mixed",
    ("precision", "amp"): "16-mixed", ("precision", "bf16"): "bf16-mixed",
    ("task", "classification"): "classify", ("task", "detection"): "detect", ("task", "retrieval"): "reid",
    ("cache", "memory"): "ram", ("cache", "true"): "ram", ("cache", "false"): "none",
    ("upsample", "deconv"): "transposed", ("upsample", "pixel_shuffle"): "pixelshuffle",
    ("flip", "vertical"): "both",
    ("to", "tflite"): "litert", ("to", "tensorflow"): "litert", ("to", "pte"): "executorch",
    ("to", "xnnpack"): "executorch", ("to", "onnxruntime"): "onnx", ("to", "ort"): "onnx",
}  # fmt: skip


def other_name(word: str, known: list[str]) -> str:
    """A hint for an unknown flag or key: if it is another program's name, ours; else the nearest spelling."""
    dashes = word[: len(word) - len(word.lstrip("-"))]
    plain = word.lstrip("-").replace("-", "_").lower()
    if plain in INSTEAD:
        return f"; {INSTEAD[plain]}"
    there = {name.lstrip("-") for name in known}
    found = plain if plain in there else NAMES.get(plain)
    if found in there:
        return f"; it is {dashes and '--'}{found} here"
    on = plain.removeprefix("no_")
    if on in there and on in OFF:
        return f"; use {dashes and '--'}{on}{' ' if dashes else '='}{OFF[on]}"
    elsewhere = {name: own for name, own in NAMES.items() if own in there}
    near = difflib.get_close_matches(plain[:100], sorted(there), n=1, cutoff=0.6)
    near = near or difflib.get_close_matches(plain[:100], sorted(elsewhere), n=1, cutoff=0.8)
    if near:
        return f"; did you mean {dashes and '--'}{elsewhere.get(near[0], near[0])}?"
    flags = [name for name in known if name not in ("-h", "--help")] if dashes else []
    return f"; choose from {', '.join(flags)}" if 0 < len(flags) <= SHORT else ""


def other_value(name: str, value: str, choices: list[str]) -> str:
    """The same for a field's value."""
    found = VALUES.get((name, value.lower()))
    return f"; it is {found} here" if found in choices else did_you_mean(value, choices)


def did_you_mean(word: str, known: list[str]) -> str:
    """`; did you mean NEAREST?`, or nothing."""
    near = difflib.get_close_matches(str(word)[:100], known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def unknown(words: list[str], known: list[str]) -> str:
    """The message for words that a command does not know: its wrong flags, else the first word."""
    flags = [word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z_]", word)]
    if not flags:
        return f"{words[0]}: one argument too many; flags start with --"
    return "; ".join(f"{flag}: no such flag{other_name(flag, known)}" for flag in dict.fromkeys(flags))


def choice(message: str) -> str | None:
    """A parser's message about a value that is none of a flag's choices, in our form; else None."""
    found = re.search(r"argument (?:--)?(\w+): invalid choice: '(.*)' \(choose from (.*)\)", message)
    if found is None:
        return None
    name, value, known = found[1], found[2], re.findall(r"[\w.-]+", found[3])
    return f"{name}={value}: choose from {', '.join(known)}{other_value(name, value, known)}"


class Parser(argparse.ArgumentParser):
    """argparse's parser, with errors in one line and exit status 2, as in all commands here. Flags cannot be
    abbreviated.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | options)
        self.known: dict[str, Callable[[], list[str]]] = {}
        """A required word -> what it may be now, such as the studies that have rows; for its error."""

    def _flags(self) -> list[str]:
        """The command's flags, and those of its subcommands."""
        below = [action.choices for action in self._actions if isinstance(action.choices, dict)]
        subs = [sub for choices in below for sub in choices.values() if isinstance(sub, Parser)]
        found = [*self._option_string_actions, *(flag for sub in subs for flag in sub._flags())]
        return list(dict.fromkeys(found))

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            message = unknown(message.split(": ", 1)[1].split(), self._flags())
        elif said := choice(message):
            message = said
        elif found := re.match(r"argument ([^:]+): (.*)", message):  # argparse's message about a value
            message = f"{found[1]}: {found[2]}"
        elif message.startswith("the following arguments are required: "):
            message = self._required(message.split(": ", 1)[1])
        print(f"error: {flat(message)}", file=sys.stderr)
        raise SystemExit(2)

    def _required(self, names: str) -> str:
        """The message for words that are missing, with what they may be."""
        may_be = lambda a: a.choices or self.known.get(a.dest, list)()
        words = [
            f"{action.dest}, one of {', '.join(map(str, may_be(action)))}" if may_be(action) else name
            for name in names.split(", ")
            for action in self._actions
            if name in (action.dest, action.metavar, *action.option_strings)
        ]
        return f"missing: {'; '.join(words) or names}; --help lists what can be given"
