"""The command shown for a run recreates it: parsed by the real parser, it has the row's key."""

import shlex
from functools import cache

import pytest
from conftest import ROOT

from hbo import flags
from hbo.analysis import results
from hbo.analysis.commands import command
from hbo.config import content, key_of, resolve
from hbo.errors import UserError
from hbo.runs import identity

ROWS = results.load(ROOT / "ablations").to_dict("records")


@cache
def parser():
    return flags.make_parser("hbo.fit", "")


def key_from(text: str, row: dict) -> str:
    """The key of the run that a command creates; DIR and FILE stand for what the row recorded."""
    words = shlex.split(text)
    assert words[:3] == ["python", "-m", "hbo.fit"]
    given = flags.given(parser(), words[3:])
    assert given.pop("data_dir", "DIR") == "DIR"
    run = resolve(**given)
    held = {name: what for name, what in identity.of_row(row).items() if name in ("images", "backbone")}
    return key_of(content(vars(run)) | held)


def test_every_committed_row_has_its_own_command():
    made = [command(row) for row in ROWS]
    assert len({(text, row["data"], row["study"]) for text, row in zip(made, ROWS, strict=True)}) == len(ROWS)
    for text, row in zip(made, ROWS, strict=True):
        assert key_from(text, row) == row["key"]
        assert ("--data_dir DIR" in text) == (row["data"] not in ("elpv", "digits"))
        if row["seed"] == 1:
            assert not [flag for flag, fewer in without_one(text) if gives(fewer, row)], text


def without_one(text: str) -> list[tuple[str, str]]:
    """Each flag of a command, and the command without it; a folder's recipe is always written out, as small
    folders have a different one.
    """
    words = shlex.split(text)
    needed = {
        "--data",
        "--data_dir",
        "--backbone_checkpoint",
        *(("--epochs", "--batch", "--lr") if "imagefolder" in words else ()),
    }
    flags_ = [i for i, word in enumerate(words) if word.startswith("--") and word not in needed]
    return [(words[i], shlex.join(words[:i] + words[i + 2 :])) for i in flags_]


def gives(text: str, row: dict) -> bool:
    try:
        return key_from(text, row) == row["key"]
    except UserError:
        return False


def test_the_default_run_needs_no_flag():
    row = next(row for row in ROWS if row["study"] == "elpv_recipe" and row["seed"] == 0)
    assert command(row) == "python -m hbo.fit"


@pytest.mark.parametrize(
    "fields",
    [{"data": "imagenet", "net": "torchvision:resnet18"}, {"data": "imagenet", "cache": "disk", "cache_size": 200}, {"devices": 2},
     {"data": "cifar10", "schedule": "step", "milestones": "30,45"},
     {"data": "digits", "lr": 0.1 + 0.2, "nesterov": True},
     {"net": "mobilenetv2", "match_macs": 44.1}, {"data": "voc", "schedule": "cosine", "k": 3},
     {"data": "imagenet", "resolution": 160}],
    ids=str,
)  # fmt: skip
def test_derived_fields_are_not_in_the_command(fields):
    run = resolve(**fields)
    row = vars(run)
    assert key_from(command(row), row) == key_of(content(row))


def test_a_checkpoint_is_named_as_a_file():
    run = resolve(data="market1501", net="hbonet", width=0.5, backbone_checkpoint="/home/me/some.pth")
    row = vars(run) | {"backbone_weights": "a state dict (0123456789)"}
    assert command(row).endswith("--data_dir DIR --backbone_checkpoint FILE")
    assert "/home" not in command(row)
