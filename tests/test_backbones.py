"""A study's folder as backbone_checkpoint: each run gets the classifier with its own network."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import call, make_market, only_row
from flagged import flags

from hbo.analysis import results
from hbo.config import resolve
from hbo.errors import UserError


def add(root: Path, key: str, state: str = "done", **given) -> Path:
    """A classifier's run, with only the files that are needed to find it."""
    where = root / key
    where.mkdir(parents=True)
    (where / "row.json").write_text(json.dumps({**asdict(resolve(data="imagenet", **given)), "state": state}))
    (where / "last.ckpt").write_bytes(key.encode())
    return where


def run(root: Path, **given):
    return resolve(data="market1501", backbone_checkpoint=str(root), **given)


def test_each_network_starts_from_its_own_classifier(tmp_path):
    wanted = {
        "a": {"width": 0.5},
        "b": {"width": 0.25},
        "c": {"net": "mobilenetv2", "width": 0.5},
        "d": {"width": 0.5, "k": 2},
    }
    for key, given in wanted.items():
        add(tmp_path, key, **given)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "row.json").write_text("{")
    for key, given in wanted.items():
        assert run(tmp_path, **given).start_file() == str(tmp_path / key)
        # The study and the run give the same weights and the same key.
        assert run(tmp_path, **given).key() == run(tmp_path / key, **given).key()
    assert len({run(tmp_path, **given).key() for given in wanted.values()}) == 4
    by_sweep = resolve(data="market1501", variant=f"net=mobilenetv2 width=0.5 backbone_checkpoint={tmp_path}")
    assert by_sweep.start_file() == str(tmp_path / "c")
    # A run's folder is taken as given; a mismatch is an error later.
    assert run(tmp_path / "a", width=0.25).start_file() == str(tmp_path / "a")
    assert run("some.pth").start_file() == "some.pth"


def test_each_seed_starts_from_its_own_classifier(tmp_path):
    add(tmp_path, "a", width=0.5, seed=0)
    assert run(tmp_path, width=0.5, seed=3).start_file() == str(tmp_path / "a")  # the only one
    add(tmp_path, "b", width=0.5, seed=1)
    assert [Path(run(tmp_path, width=0.5, seed=seed).start_file()).name for seed in (0, 1)] == ["a", "b"]
    with pytest.raises(UserError, match=r"2 finished classifiers of net=hbonet width=0.5, none with seed 3; name one of .*/a, .*/b"):  # fmt: skip
        run(tmp_path, width=0.5, seed=3).key()


def test_classifiers_per_seed_are_one_arm_and_one_file_is_another(tmp_path):
    for study, seeds, lr in (("several", (0, 1), 0.05), ("one", (0,), 0.05), ("others", (0, 1), 0.1)):
        for seed in seeds:
            given = {"width": 0.5, "seed": seed, "lr": lr}
            path = add(tmp_path / study, f"{study}{seed}", **given) / "row.json"
            own = resolve(data="imagenet", **given).identity()
            path.write_text(json.dumps(json.loads(path.read_text()) | {"identity": own}))
    drawn = []
    for study in ("several", "one", "others"):
        for seed in (0, 1):
            one = run(tmp_path / study, width=0.5, seed=seed)
            row = asdict(one) | {"key": one.key(), "state": "done", "identity": one.identity(), "git": "0"}
            drawn.append(row | ({"backbone_arm": arm} if (arm := one.backbone_arm()) else {}))
    assert len({row["key"] for row in drawn}) == 6
    arms = [runs for _, runs in results.arms(results.frame(drawn))]
    starts = {tuple(Path(start).name for start in runs["backbone_checkpoint"]) for runs in arms}
    assert starts == {("several",) * 2, ("one",) * 2, ("others",) * 2}
    assert [sorted(runs["seed"]) for runs in arms] == [[0, 1]] * 3
    assert [("backbone_arm" in row) for row in drawn] == [True, True, False, False, True, True]


def test_a_row_older_than_a_field_has_its_default(tmp_path):
    path = add(tmp_path, "a", width=0.5) / "row.json"
    row = json.loads(path.read_text())
    del row["contract"]
    path.write_text(json.dumps(row))
    assert run(tmp_path, width=0.5).start_file() == str(tmp_path / "a")


@pytest.mark.parametrize(("there", "word"), [
    ({"width": 0.25}, r"no finished classifier of net=hbonet width=0.5 below it \(found: net=hbonet width=0.25\); add the flags of one of"),
    ({"width": 0.5, "k": 2}, r"of net=hbonet width=0.5 k=1 below it \(found: net=hbonet width=0.5 k=2\); add the"),
    ({"width": 0.5, "divisor": 8}, r"width=0.5 divisor=2 below it \(found: net=hbonet width=0.5 divisor=8\)"),
    ({"width": 0.5, "state": "unfinished"}, r"\(found: none of any network\)"),
    (None, r"\(found: none of any network\)"),
])  # fmt: skip
def test_a_study_without_the_classifier_is_an_error(there, word, tmp_path):
    if there:
        add(tmp_path, "a", **there)
    with pytest.raises(UserError, match=word) as error:
        run(tmp_path, width=0.5).key()
    assert str(error.value).startswith(f"backbone_checkpoint={tmp_path}: ")


@pytest.mark.slow
def test_a_run_starts_from_a_studys_classifier(tmp_path):
    """Through hbo.fit and through a sweep the key is the same, the row records the classifier, and evaluate
    and config.yaml use it again.
    """
    small = flags(width=0.1, threads=1, epochs=1, accelerator="cpu")
    call("hbo.fit", "--data", "digits", "--limit_batches", 2, *small, "--out", tmp_path, "--study", "first")
    _, classifier = only_row(tmp_path)
    market = make_market(tmp_path / "market")
    args = [*small, *flags(data="marketfolder", data_dir=market, resolution=64, workers=0, batch=12)]
    args += flags(classifier_epochs=1)
    variant = f"net=hbonet backbone_checkpoint={tmp_path / 'first'}"
    call("hbo.fit", *args, "--variant", variant, "--out", tmp_path / "out")
    row, folder = only_row(tmp_path / "out")
    assert row["backbone_weights"].startswith("hbonet trained on digits, 1 epoch, seed 0")
    call("hbo.fit", "--config", folder / "config.yaml")  # already finished
    assert only_row(tmp_path / "out")[0]["started"] == row["started"]
    assert json.loads(call("hbo.evaluate", folder, "--json")[0])["map"] == pytest.approx(row["map"], rel=1e-9)
    shutil.copytree(classifier, tmp_path / "second" / "copy")
    call("hbo.fit", *args, "--backbone_checkpoint", tmp_path / "second", "--out", tmp_path / "out")
    assert only_row(tmp_path / "out")[0]["key"] == row["key"]
