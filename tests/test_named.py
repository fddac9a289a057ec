"""Named recipes have the published values, a flag overrides each value, and a recipe is only its fields."""

import dataclasses
import math

import pytest
import torch
import yaml
from conftest import ROOT, call, make_folder, only_row
from flagged import flags

from hbo.analysis import arms, families, question, results
from hbo.analysis.commands import command
from hbo.analysis.families import Arm
from hbo.analysis.question import Question
from hbo.config import Run, content, resolve
from hbo.errors import UserError
from hbo.flags import parse
from hbo.runs import identity
from hbo.sweep import asked, plan
from hbo.sweep.study import read
from hbo.tasks import TASKS
from hbo.tasks.base import Schedule
from hbo.tasks.classify import named

# MobileNetV4-Conv-S in tensorflow/models, and MobileNetV2 in torchvision's references
# (hbo/tasks/classify/named.py), at their own batch sizes.
MODERN = {"optimizer": "adamw", "lr": 0.002, "momentum": 0.6, "weight_decay": 0.01, "no_decay_on_norm": True, "warmup": 5.0,
          "schedule": "cosine", "ema": 0.9999, "label_smoothing": 0.1, "auto_augment": "rand", "dropout": 0.3}  # fmt: skip
MOBILENETV2 = {"optimizer": "sgd", "lr": 0.045, "momentum": 0.9, "weight_decay": 4e-5, "schedule": "exponential", "warmup": 0.0, "dropout": 0.2}  # fmt: skip


def taken(run, names):
    return {name: getattr(run, name) for name in names}


@pytest.mark.parametrize(
    ("recipe", "values", "batch"), [("modern", MODERN, 4096), ("mobilenetv2", MOBILENETV2, 256)]
)
def test_recipes_have_the_published_values_at_their_batch(recipe, values, batch):
    assert taken(resolve(data="imagenet", recipe=recipe, batch=batch), values) == values


def test_the_papers_recipe_is_the_default():
    for data in ("elpv", "imagenet", "cifar10"):
        assert resolve(data=data, recipe="paper") == resolve(data=data)
    assert resolve(data="imagenet", recipe="mobilenetv2", epochs=300).epochs == 300
    assert Run.epochs == named.EPOCHS
    assert Run.batch == named.BATCH
    assert resolve(k=2, recipe="paper").key() == "8faa71d03b"


def test_the_rate_scales_with_the_batch_and_the_warm_up_with_the_epochs():
    """Proportional to the batch with SGD, to its square root with AdamW."""
    lr = lambda recipe, batch: resolve(data="imagenet", recipe=recipe, batch=batch).lr
    assert lr("mobilenetv2", 128) == pytest.approx(0.045 / 2)
    assert lr("modern", 1024) == pytest.approx(0.002 / 2)
    assert lr("modern", 256) == pytest.approx(0.002 / 4)
    assert resolve(data="digits", recipe="modern", epochs=10).warmup == 2
    assert resolve(data="digits", recipe="modern", epochs=100).warmup == 5


@pytest.mark.parametrize("recipe", list(named.RECIPES))
@pytest.mark.parametrize("data", ["elpv", "digits", "cifar10", "imagenet"])
def test_a_recipe_and_its_fields_typed_are_the_same_run(recipe, data):
    run = resolve(data=data, recipe=recipe)
    typed = resolve(data=data, **taken(run, named.FIELDS))
    assert run.key() == typed.key() != resolve(data=data).key()
    assert dataclasses.replace(typed, recipe=recipe) == run
    assert resolve(**yaml.safe_load(yaml.safe_dump(vars(run)))) == run
    # Images, epochs, batch and class weights stay those of the set.
    rest = [f.name for f in dataclasses.fields(Run) if f.name not in (*named.FIELDS, "recipe")]
    assert taken(run, rest) == taken(resolve(data=data), rest)


def test_a_flag_overrides_one_field_of_a_recipe():
    others = {"lr": 0.3, "warmup": 0.5, "weight_decay": 0.2, "optimizer": "sgd", "schedule": "constant", "dropout": 0.1,
              "momentum": 0.8, "no_decay_on_norm": False, "ema": 0.0, "label_smoothing": 0.0, "auto_augment": "none"}  # fmt: skip
    assert others.keys() == set(named.FIELDS)
    usual = resolve(data="digits", recipe="modern")
    for name, value in others.items():
        run = resolve(data="digits", recipe="modern", **{name: value})
        assert getattr(run, name) == value != getattr(usual, name)
        assert dataclasses.replace(run, **{name: getattr(usual, name)}) == usual
    assert parse(["--recipe", "modern", "--data", "digits", "--lr", "0.3"]).lr == 0.3
    assert parse(["--config", '{"recipe": "modern", "data": "digits"}', "--ema", "0"]).ema == 0


def test_a_zoos_network_keeps_its_own_dropout():
    run = resolve(data="digits", recipe="modern", net="torchvision:resnet18")
    assert (run.dropout, run.optimizer) == (0.0, "adamw")
    assert identity.value(run.identity(), "recipe") == "modern"


def test_an_exponential_rate_is_torchvisions_in_as_many_epochs():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.045)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.98)
    ours = Schedule(resolve(data="imagenet", recipe="mobilenetv2", epochs=300), 10)
    short = Schedule(resolve(data="imagenet", recipe="mobilenetv2", epochs=30), 10)
    for epoch in range(300):
        assert 0.045 * ours(10 * epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        assert short(epoch) == pytest.approx(ours(10 * epoch))
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(("given", "said"), [
    ({"recipe": "modrn"}, "recipe='modrn': choose from paper, mobilenetv2, modern; did you mean modern?"),
    ({"recipe": "modern", "data": "voc"}, "recipe=modern: is not used by task=detect"),
    ({"recipe": "modern", "cache": "ram"}, "auto_augment=rand: works on single decoded images: it needs --cache none"),
])  # fmt: skip
def test_impossible_settings_are_errors(given, said):
    with pytest.raises(UserError) as refused:
        resolve(**{"data": "digits"} | given)
    assert said in str(refused.value)


def test_a_small_folder_keeps_its_epochs_and_batch(tmp_path):
    folder = str(make_folder(tmp_path / "own", {"ants": 40, "bees": 40}, {"ants": 3, "bees": 3}))
    small, run = resolve(data_dir=folder), resolve(data_dir=folder, recipe="modern")
    assert (run.epochs, run.batch) == (small.epochs, small.batch) == (100, 8)
    assert run.lr == pytest.approx(0.002 * math.sqrt(8 / 4096), rel=1e-3)
    assert run.weight_decay == 0.01
    said = TASKS["classify"].advice(run)
    assert said.startswith("recipe modern: lr=8.839e-05, warmup=5, weight_decay=0.01, optimizer=adamw")
    assert said.endswith("(from 0.002 at a batch of 4096); epochs=100, batch=8 for 80 training images")


@pytest.mark.slow
def test_a_run_prints_its_recipe_and_overrides_and_the_row_has_them(tmp_path):
    args = flags(data="digits", epochs=1, limit_batches=2, width=0.1, threads=1, workers=0)
    _, err = call("hbo.fit", *args, "--recipe", "modern", "--lr", 0.001, "--out", tmp_path)
    (line,) = [line for line in err.splitlines() if "recipe" in line]
    assert line.startswith("recipe modern: warmup=0.2, weight_decay=0.01, optimizer=adamw, momentum=0.6")
    assert line.endswith("; overridden by flags: lr=0.001")
    row, folder = only_row(tmp_path)
    assert (row["recipe"], row["optimizer"], row["lr"], row["ema"]) == ("modern", "adamw", 0.001, 0.9999)
    assert "recipe" not in row["identity"]
    assert "--recipe modern" in command(row)
    assert "--optimizer" not in command(row)
    typed = {name: row[name] for name in named.FIELDS}
    _, err = call(
        "hbo.fit", *args, "--config", yaml.safe_dump(typed, default_flow_style=True), "--out", tmp_path
    )
    assert only_row(tmp_path)[1] == folder  # the same run, already finished


# ------------------------------------------------------------ in a study


@pytest.fixture
def entries(tmp_path):
    path = tmp_path / "tiny.yaml"
    grid = {"data": {"value": "digits"}, "recipe": {"values": ["paper", "modern"]}, "epochs": {"values": [5, 10]},
            "net": {"values": ["hbonet", "mobilenetv2"]}, "seed": {"values": [0, 1]}}  # fmt: skip
    primary = {"versus": ["net", "recipe", "net x recipe"], "judge": "effects"}
    path.write_text(yaml.safe_dump({"method": "grid", "primary": primary, "parameters": grid}))
    sweep = read(path)
    return sweep, plan.entries(sweep)


def test_a_recipe_can_be_swept_and_names_the_arms(entries):
    _, runs = entries
    assert len({entry.key for entry in runs}) == 16
    made = [f"{net} recipe={recipe} epochs={n}" for n in (5, 10) for net in ("hbonet", "mobilenetv2") for recipe in ("paper", "modern")]  # fmt: skip
    assert sorted(asked.by_arm(runs)) == sorted(made)


def test_means_have_a_column_for_the_recipe_in_place_of_its_fields(entries):
    _, runs = entries
    rows = [
        vars(entry.run) | {"key": entry.key, "state": "done", "top1": 0.5, "identity": entry.identity}
        for entry in runs
    ]
    assert list(results.summary(results.frame(rows)).columns) == [
        "recipe",
        "net",
        "divisor",
        "epochs",
        "n",
        "top1",
    ]


def test_an_arm_without_a_recipe_shows_its_fields():
    ones = [resolve(data="digits", recipe="modern", **given).identity() for given in ({}, {"ema": 0.0})]
    assert identity.value(ones[1], "recipe") is None
    assert arms.names(ones) == ["ema=0.9999", "ema=0"]
    typed = [content(vars(resolve(data="digits", optimizer=name))) for name in ("sgd", "adamw")]
    assert arms.names(typed) == ["optimizer=sgd", "optimizer=adamw"]


def test_a_field_that_differs_from_the_recipe_is_shown_beside_it():
    given = [{"recipe": "paper"}, {"recipe": "modern"}, {"recipe": "modern", "lr": 0.001}]
    found = arms.names([resolve(data="digits", **one).identity() for one in given])
    assert [one.split()[0] for one in found] == ["recipe=paper", "recipe=modern", "recipe=modern"]
    assert ["lr=" in one for one in found] == [True] * 3
    assert len(set(found)) == 3


def test_recipes_pair_arms_with_equal_other_fields(entries):
    _, runs = entries
    (family,) = [f for f in families.of(question.parse({"versus": "recipe=modern against recipe=paper"}), asked.arms(runs, costs=False)) if f.primary]  # fmt: skip
    pairs = [one.label.split(" against ") for one in family.contrasts]
    assert len(pairs) == 4
    assert all(a.replace("modern", "paper") == b for a, b in pairs)


def test_an_interaction_is_a_difference_of_differences(entries):
    """With made-up means, the effects and an interaction of 0.02 are recovered exactly, whatever the epochs
    add.
    """
    sweep, runs = entries
    mean = {}
    for arm, own in asked.by_arm(runs).items():
        run = own[0].run
        mine, new = run.net == "mobilenetv2", run.recipe == "modern"
        mean[arm] = 0.6 - 0.03 * mine + 0.05 * new + 0.02 * mine * new + 0.01 * (run.epochs == 10) * (1 + new)
    found = {
        one.label: sum(w * mean[arm] for arm, w in one.weights.items())
        for one in asked.primary(sweep, runs).contrasts
    }
    assert found == pytest.approx({
        "net=mobilenetv2 against net=hbonet": -0.03 + 0.02 / 2,
        "recipe=modern against recipe=paper": 0.05 + 0.02 / 2 + 0.01 / 2,
        "net=mobilenetv2 against net=hbonet, more at recipe=modern than at recipe=paper": 0.02,
    })  # fmt: skip


def test_an_interaction_needs_each_pair_of_values():
    lines = [
        Arm(f"{k}{r}", {"k": k, "residual": r}, math.nan)
        for k, r in ((1, True), (1, False), (2, True), (2, False))
    ]
    asks = Question(versus=("k x residual",), judge="effects")
    (one,) = families.of(asks, lines)[0].contrasts
    assert one.weights == {"1True": 1, "1False": -1, "2True": -1, "2False": 1}
    with pytest.raises(UserError, match="also differ in other fields"):
        families.check_arms(asks, lines[:3])
    with pytest.raises(UserError, match="must name fields"):
        question.parse({"versus": ["k x rezidual"], "judge": "effects"})


def test_the_recipe_study_is_balanced_and_asks_its_question():
    sweep = read(ROOT / "sweeps" / "recipe.yaml")
    runs = plan.entries(sweep)
    found = [entry.run for entry in runs]
    assert len(found) == len({entry.key for entry in runs}) == 2 * 2 * 2 * 6
    assert len(asked.primary(sweep, runs).contrasts) == 5
    paper = [run for run in found if run.recipe == "paper" and run.epochs == 15]
    before = [resolve(**row) for row in read(ROOT / "sweeps" / "backbones_cifar10.yaml").rows]
    # So that their rows are reused.
    assert {run.key() for run in before} == {run.key() for run in paper if run.seed == 0}
