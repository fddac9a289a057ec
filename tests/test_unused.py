"""A flag that another flag switches off is an error: it would be a second key of the same training."""

from dataclasses import asdict

import pytest
import torch
from conftest import ROOT
from test_block import CASES as CASES_OF_BLOCK
from test_block import differ, make

from hbo import nets
from hbo.block import Block
from hbo.config import Run, resolve, resolve_saved
from hbo.errors import UserError
from hbo.flags import parse
from hbo.sweep import plan
from hbo.sweep.study import read
from hbo.tasks.classify.data import random_part

STILL = {"crop": "none", "flip": "none"}
# What is given, and the flag that it switches off.
CASES = [
    ({"k": 0}, {"upsample": "bilinear"}, "upsample=bilinear: is not used by k=0; remove it"),
    ({"k": 0}, {"contract": "maxpool"}, "contract=maxpool: is not used by k=0; remove it"),
    ({"k": 0}, {"scheme": "paper"}, "scheme=paper: is not used by k=0; remove it"),
    ({"k": 1}, {"scheme": "paper"}, "scheme=paper: is not used by k=1; remove it"),
    ({}, {"crop_area": 0.5}, "crop_area=0.5: is not used by crop=none; remove it"),
    ({"crop": "pad"}, {"crop_area": 0.5}, "crop_area=0.5: is not used by crop=pad; remove it"),
    (STILL, {"augment": "device"}, "augment=device: is not used by crop=none with flip=none and jitter=0; remove it"),
    ({"weight_decay": 0}, {"no_decay_on_norm": True}, "no_decay_on_norm=True: is not used by weight_decay=0; remove it"),
    ({"distill": "a", "distill_weight": 0}, {"distill_temperature": 2}, "distill_temperature=2.0: is not used by distill_weight=0; remove it"),
    ({"distill": "a", "distill_weight": 1}, {"label_smoothing": 0.1}, "label_smoothing=0.1: is not used by distill_weight=1; remove it"),
    ({"distill": "a", "distill_weight": 1, "data": "digits"}, {"class_weights": "balanced"}, "class_weights=balanced: is not used by distill_weight=1; remove it"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "off", "said"), CASES, ids=lambda v: str(v)[:40])
def test_a_flag_that_is_switched_off_is_an_error(given, off, said):
    with pytest.raises(UserError) as error:
        resolve(**{"data": "elpv"} | given | off)
    assert str(error.value) == said
    old = resolve_saved(**{"data": "elpv"} | given | off)  # a row from before
    assert resolve(**{"data": "elpv"} | given) != old


@pytest.mark.parametrize(("k", "off"), [(k, off) for k, off in ((0, {"upsample": "bilinear"}), (0, {"contract": "maxpool"}), (0, {"scheme": "paper"}), (1, {"scheme": "paper"}))])  # fmt: skip
def test_it_is_the_same_network(k, off):
    x, made = torch.randn(2, 3, 64, 64), []
    for block in (Block(k=k), Block(k=k, **off)):
        torch.manual_seed(0)
        made.append(nets.build("hbonet", block, 0.1)(x))
    assert torch.equal(*made)


def test_what_has_an_effect_is_none(capsys):
    for argv in (
        ["--k", "0", "--scheme", "uniform"],  # the control of the uniform block's studies
        ["--k", "0", "--kernel", "3", "--residual", "false"],
        ["--k", "2", "--scheme", "paper", "--upsample", "bilinear", "--contract", "maxpool"],
        ["--crop", "random", "--crop_area", "0.5"],
        ["--augment", "device"],  # elpv's flips
        ["--crop", "none", "--crop_area", "0.08"],  # the default
        ["--distill", "a", "--distill_weight", "0"],
    ):
        parse(argv)


def test_what_a_recipe_sets_is_not_the_users():
    """The same for a run's own config.yaml, which has all fields."""
    cropless = resolve(data="imagenette", crop="none")
    assert cropless.crop_area == 0.35 != Run.crop_area
    undecayed = resolve(data="digits", recipe="modern", weight_decay=0)
    assert undecayed.no_decay_on_norm
    for run in (cropless, undecayed, resolve(data="elpv", distill="a", distill_weight=1)):
        assert resolve(**asdict(run)) == run
    assert random_part(resolve(data="digits"), train=True) == []  # so nothing is left to a device


def test_in_a_sweep_it_is_those_rows_fault_alone(tmp_path):
    """Except if no row uses the value: then the file is wrong."""
    study = read(ROOT / "sweeps" / "upsample.yaml", {"k": [0, 2], "seed": 0, "out": str(tmp_path)})
    found = [(entry.fields["k"], entry.fields["upsample"], entry.state) for entry in plan.entries(study)]
    assert {state for k, up, state in found if k == 0 and up != "nearest"} == {"invalid"}
    assert {state for k, up, state in found if k == 2 or up == "nearest"} == {"missing"}
    with pytest.raises(UserError, match=r"parameters\.upsample=bilinear: is not used by k=0"):
        plan.entries(read(ROOT / "sweeps" / "upsample.yaml", {"k": 0, "seed": 0, "out": str(tmp_path)}))


OFTEN = {"k": 2, "scheme": "uniform"}  # where every other switch has an effect
SWITCHED = [
    (name, value) for name, value in CASES_OF_BLOCK if name not in OFTEN and value != getattr(Block(), name)
]


def blocks(**given):
    """A bottleneck of these switches with each stride; None if `hbo.fit` refuses them."""
    try:
        resolve(data="fake", **given)
    except UserError:
        return None
    return [make(Block(**given), stride) for stride in (1, 2)]


@pytest.mark.parametrize(("name", "value"), SWITCHED)
def test_a_switch_has_an_effect_at_every_value_of_the_others_or_is_an_error(name, value):
    x = 20 * torch.randn(2, 6, 16, 16)  # beyond 6, where ReLU6 is not ReLU
    compared = 0
    for other, at in CASES_OF_BLOCK:
        if other == name:
            continue
        usual = {**OFTEN, other: at}
        before, after = blocks(**usual), blocks(**usual, **{name: value})
        if before and after:
            compared += 1
            assert any(differ(*pair, x) for pair in zip(before, after, strict=True)), (
                f"{name}={value} changes nothing at {other}={at}: a line in hbo.limits.check_used?"
            )
    assert compared > 5
