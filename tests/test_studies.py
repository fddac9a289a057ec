"""The sweep files: each row is a run, and each table has exactly the published rows."""

import json
import re
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
import yaml
from conftest import ROOT, make_folder, make_market, make_voc, published

from hbo import cost
from hbo.analysis.published import RIVALS
from hbo.config import Run, resolve
from hbo.nets import size
from hbo.sweep.study import COMMAND, read
from hbo.tasks.build import network as build_net

FILES = sorted((ROOT / "sweeps").glob("*.yaml"))
TABLES = {"2": "table2", "3": "table3", "4": "table4", "5": "table5", "6": "contraction"}
BCCD = ("detection_bccd", "detection_bccd_transfer")
DETECTION = ("table8", *BCCD)
REID = ("table9", "reid_coil20", "reid_omniglot")
SEEDS = {
    **dict.fromkeys(("factorial", "contraction_cifar10", "reid_coil20"), 3), **dict.fromkeys(BCCD, 3),
    "pairing": 200, "table6_cifar10": 8,
    **dict.fromkeys(("table2_cifar10", "parts_cifar10", "reid_omniglot", "few_photographs"), 5),
}  # fmt: skip  # others have six; tables and backbones have one
FOLDERS: dict[str, str] = {}


@pytest.fixture(autouse=True, scope="module")
def _voc(tmp_path_factory):
    """Folders in VOC's and Market's layouts: a run's key depends on their contents."""
    FOLDERS["marketfolder"] = str(make_market(tmp_path_factory.mktemp("market") / "set"))
    resnet = resolve(data="imagenet", net="torchvision:resnet50")
    FOLDERS["table2"] = str(trained(tmp_path_factory.mktemp("backbones") / "table2", resnet))
    FOLDERS["backbones_cifar10"] = str(trained(tmp_path_factory.mktemp("backbones") / "backbones_cifar10"))
    FOLDERS["few_photographs"] = str(few_photographs(tmp_path_factory.mktemp("few") / "few"))
    FOLDERS["vocfolder"] = str(make_voc(tmp_path_factory.mktemp("voc") / "set", train=2, test=1))


def trained(root: Path, *others: Run) -> Path:
    """As many files of a study, and of other runs, as it takes to find a backbone."""
    rows = read(ROOT / "sweeps" / f"{root.name}.yaml").rows
    for run in [*(resolve(**row) for row in rows), *others]:
        where = root / run.key()
        where.mkdir(parents=True)
        (where / "row.json").write_text(json.dumps({**asdict(run), "state": "done"}))
        (where / "last.ckpt").write_text(run.key())
    return root


def started(name: str, weights: Path) -> list[str]:
    """A file's variants, with the backbones replaced by local ones."""
    variants = yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text())["parameters"]["variant"][
        "values"
    ]
    return [re.sub(r"runs/backbones_\w+", str(weights), variant) for variant in variants]


def few_photographs(root: Path) -> Path:
    """As many images as the study trains on: the recipe depends on their number."""
    return make_folder(root, {"automobile": 120, "truck": 120}, {"automobile": 1, "truck": 1}, size=32)


def runs(name: str, **overrides) -> list[Run]:
    if name in ("reid_omniglot", "few_photographs"):
        overrides = {"variant": started(name, Path(FOLDERS["backbones_cifar10"])), **overrides}
    if name == "few_photographs" and overrides.get("data", "imagefolder") == "imagefolder":
        overrides = {"data_dir": FOLDERS[name], **overrides}
    if name in (*BCCD, "reid_coil20", "reid_omniglot"):
        overrides = {"data_dir": FOLDERS["vocfolder" if name in DETECTION else "marketfolder"], **overrides}
    if start := {"table9": "table2", "detection_bccd_transfer": "backbones_cifar10"}.get(name):
        overrides = {"backbone_checkpoint": FOLDERS[start], **overrides}
    return [resolve(**row) for row in read(ROOT / "sweeps" / f"{name}.yaml", overrides).rows]


def test_the_studies_are_there():
    wanted = {"contraction", "contraction_cifar10", "contraction_uniform", "contraction_isomac", "mobilenetv2", "stages", "concat_ratio", "upsample",
              "residual", "contract", "factorial", "stages_cifar10", "table2", "table3", "table4", "table5", "table7",
              "backbones_cifar10", "recipe",
              "table2_cifar10", "table6_cifar10", "parts_cifar10", "pairing", "few_photographs", *DETECTION, *REID}  # fmt: skip
    assert {path.stem for path in FILES} == wanted


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("data", [None, "elpv", "cifar10", "imagenet"])
def test_each_row_is_a_distinct_run(path, data):
    if path.stem in DETECTION and data:
        data = "voc"
    if path.stem in REID and data:
        data = "market1501"
    if path.stem == "few_photographs":
        data = None  # its weights belong to a network for photographs
    found = runs(path.stem, **({"data": data} if data else {}))
    assert len({run.key() for run in found}) == len(found)
    assert {run.study for run in found} == {path.stem}
    assert data is None or {run.data for run in found} == {data}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_wandb_can_read_every_sweep_file(path):
    content = yaml.safe_load(path.read_text())
    assert content["command"] == ["${env}", "${interpreter}", *COMMAND]
    assert content["name"] == path.stem
    assert "seed" in content["parameters"]
    assert all("." not in name for name in content["parameters"])
    comment = path.read_text().split("name:")[0]
    assert all(
        word in comment
        for word in (
            "?" if path.stem not in ("table3", "table4", "table7") else "HBONet",
            "Regenerates: ",
            "Cost: ",
            "data_dir",
        )
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_has_the_runs_of_its_comment_and_the_seeds_that_its_claim_needs(path):
    found = runs(path.stem)
    (said,) = re.findall(r"^# Cost: (\d+) runs", path.read_text(), re.MULTILINE)
    assert int(said) == len(found)
    seeds = SEEDS.get(path.stem, 1 if path.stem.startswith(("table", "backbones")) else 6)
    assert {run.seed for run in found} == set(range(seeds))
    without = Counter(replace(run, seed=0).key() for run in found)
    assert set(without.values()) == {seeds}  # every row has every seed


@pytest.mark.parametrize("switch", ["upsample", "contract", "residual"])
def test_a_switchs_study_has_all_its_values(switch):
    kind = get_type_hints(Run)[switch]
    assert {getattr(run, switch) for run in runs(switch)} == set(get_args(kind) or (True, False))


@pytest.mark.parametrize(("table", "study"), TABLES.items())
def test_the_rows_of_a_table_are_the_published_ones(table, study):
    wanted = Counter()
    for row in published(int(table)):
        net, width = row["model"], float(row["width"])
        divisor = int(row["divisor"]) if row["divisor"] else None
        wanted[
            net,
            width,
            divisor or resolve(net=net, width=width).divisor,
            int(row["resolution"]),
            int(row["k"] or 1),
        ] += 1
    found = Counter(
        (run.net, run.width, run.divisor, run.resolution, run.k)
        for run in runs(study, data="imagenet", seed=0)
    )
    assert found == wanted
    protocol = {
        (run.epochs, run.batch, run.lr, run.scheme, run.first_stage)
        for run in runs(study, data="imagenet", seed=0)
    }
    assert protocol == {(150, 256, 0.05, "release", "release")}
    resize = {run.eval_resize for run in runs(study, data="imagenet", seed=0)}
    assert resize == ({256} if table == "5" else {round(n / 0.875) for _, _, _, n, _ in found})


def test_the_rows_of_table_8_are_the_published_ones_under_the_papers_protocol():
    others = {"fd-mobilenet": ("pytorchcv:fdmobilenet_w1", 320), "mobilenet": ("pytorchcv:mobilenet_w1", 300), "pelee": ("pytorchcv:peleenet", 304)}  # fmt: skip
    wanted = Counter(
        (row["backbone"], float(row["width"]), 320)
        if row["width"]
        else (others[row["backbone"]][0], None, others[row["backbone"]][1])
        for row in published(8)
    )
    found = runs("table8")
    assert Counter((run.net, run.width, run.resolution) for run in found) == wanted
    assert len(wanted) == 11
    names = (
        "task",
        "data",
        "epochs",
        "batch",
        "lr",
        "weight_decay",
        "milestones",
        "warmup_from",
        "head",
        "min_scale",
        "anchors",
        "matching",
        "strides",
    )
    protocol = {tuple(getattr(run, name) for name in names) for run in found}
    assert protocol == {
        (
            "detect",
            "voc",
            560,
            32,
            1e-3,
            5e-4,
            "360,480",
            1e-6,
            "separable",
            0.2,
            "ssdlite",
            "bipartite",
            "16,32",
        )
    }


@pytest.mark.parametrize("study", BCCD)
def test_detectors_on_bccd_differ_only_in_the_backbone(study):
    found = [replace(run, backbone_checkpoint=None) for run in runs(study, seed=0)]
    assert {(run.net, run.width) for run in found} == {("hbonet", 0.25), ("mobilenetv2", 0.25)}
    assert len({replace(run, net="hbonet", divisor=2).key() for run in found}) == 1


def test_table_7s_comment_is_what_is_counted_and_published():
    text = (ROOT / "sweeps" / "table7.yaml").read_text()
    lines = {
        m[1]: m.groups()[1:]
        for m in re.finditer(r"# \| (\S.*?) \| ([\d.]+) \| (\d+) \| ([+-][\d.]+) \|", text)
    }
    assert list(lines) == list(RIVALS) == [row["model"] for row in published(7)]
    found = {run.net: run for run in runs("table7")}
    assert set(found) == set(RIVALS.values())
    assert {found["hbonet"].width, found["mobilenetv2"].width} == {1.0}
    for row in published(7):
        macs = cost.macs(build_net(found[RIVALS[row["model"]]], 1000), 224) / 1e6
        assert lines[row["model"]] == (f"{macs:.1f}", row["mmacs"], f"{macs - int(row['mmacs']):+.1f}")


def test_every_parameter_of_another_network_gets_a_gradient():
    """In pytorchcv's version no block of CondenseNet gets a gradient; hbo/nets/zoo.py gives the blocks their
    inputs.
    """
    for run in runs("table7"):
        net = build_net(run, 10)
        net(torch.randn(2, 3, 64, 64)).square().mean().backward()
        idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
        assert not idle, f"{run.net}: {idle}"


def test_equal_multiply_adds_are_equal():
    for name, wanted in {
        "contraction_isomac": 44.1,
        "mobilenetv2": 44.1,
        "stages": 44.1,
        "stages_cifar10": 60,
    }.items():
        for run in runs(name, seed=0):
            macs = cost.macs(build_net(run, 1000), 224) / 1e6
            assert abs(macs / wanted - 1) <= size.TOLERANCE
    (first, *_) = runs("contraction", seed=0)
    assert round(cost.macs(build_net(first, 1000), 224) / 1e6, 1) == 44.1  # table 6 at k = 1


def test_the_factorial_has_all_combinations():
    found = runs("factorial")
    assert len(found) == 3 * 3 * 3 * 2 * 3
    assert {run.scheme for run in found} == {"uniform"}
    names = ("k", "concat_ratio", "upsample", "residual", "seed")
    assert [len({getattr(run, name) for run in found}) for name in names] == [3, 3, 3, 2, 3]


def test_the_rows_of_table_9_are_the_published_ones_under_the_papers_protocol():
    names = {"resnet50": "torchvision:resnet50"}
    wanted = Counter(
        (names.get(row["backbone"], row["backbone"]), float(row["width"]) if row["width"] else None)
        for row in published(9)
    )
    found = runs("table9")
    assert Counter((run.net, run.width) for run in found) == wanted
    assert len(wanted) == 9
    for run in found:
        assert (run.data, run.size, run.batch, run.optimizer, run.lr) == (
            "market1501",
            (256, 128),
            32,
            "amsgrad",
            1e-3,
        )
        assert (run.epochs, run.drops) == ((120 if run.width == 1 else 90), [60])
        assert (run.all_epochs - run.epochs, run.classifier_epochs) == (10, 10)


def test_table_9_starts_from_the_classifiers_of_table_2():
    """Section 4.3: from ImageNet weights, each network from its own."""
    parameters = yaml.safe_load((ROOT / "sweeps" / "table9.yaml").read_text())["parameters"]
    assert parameters["backbone_checkpoint"] == {"value": "runs/table2"}
    classifiers = {run.key(): run for run in runs("table2")}
    found = runs("table9")
    assert len({run.identity()["backbone"] for run in found}) == 9
    for run in found:
        where = Path(run.start_file())
        of = classifiers.get(where.name)
        assert where.parent == Path(FOLDERS["table2"])
        assert (of and (of.net, of.width, of.divisor)) == (
            (run.net, run.width, run.divisor) if run.width else None
        )
    assert {run.classifier_epochs for run in runs("table9", backbone_checkpoint=None)} == {0}
