"""hbo.bench data: what is compared with what. No test asserts a time."""

import json

import pytest
from conftest import make_folder

from hbo.bench import data as bench
from hbo.config import resolve
from hbo.data import cache
from hbo.data.sampling import seeded
from hbo.tasks.build import open_data
from hbo.tasks.classify.module import Classify


@pytest.mark.parametrize("given", [
    {"data": "imagefolder"}, {"data": "imagefolder", "crop": "pad", "flip": "both"},
    {"data": "elpv", "per_class": 4, "holdout": 0.5},
], ids=str)  # fmt: skip
def test_the_reference_makes_the_same_images(given, tmp_path):
    """With the same random numbers, torchvision's first transforms give the network's input, up to rounding
    to bytes.
    """
    root = make_folder(tmp_path / "set", {"a": 4, "b": 4}, {"a": 1}, size=90)
    where = {"data_dir": str(root)} if given["data"] == "imagefolder" else {}
    given = {"resolution": 64, "batch": 2, **where, **given}
    run = resolve(cache="disk", cache_dir=str(tmp_path / "caches"), **given)
    plain = open_data(resolve(**given)).train
    reference = bench.reference(run, open_data(run).train)
    task = Classify(resolve(data="digits"), 2)
    assert len(reference) == len(plain)
    for item in [(epoch, i) for epoch in (0, 1) for i in range(len(plain))]:
        image, label, index = plain[item]
        with seeded(0, *item):
            theirs, *rest = reference[item]
        assert rest == [label, index]
        mine = (image - task.mean) / task.std
        # elpv's plain path resizes tensors, which rounds differently from PIL.
        assert (mine - theirs).abs().max() <= (1.1 / 255 / 0.224 if given["data"] == "elpv" else 1e-5)


def test_every_rival_takes_every_turn_and_nothing_is_left_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "SECONDS", 0.01)
    monkeypatch.setattr(cache, "MEMORY", tmp_path)
    args = ["--data", "digits", "--batch", "8", "--per_class", "2", "--cache_dir", str(tmp_path / "caches")]
    bench.main([*args, "--json"])
    found = json.loads(capsys.readouterr().out)
    rivals = ("reference", "uncached", "disk", "ram", "ram, bytes")
    assert {name: len(rates) for name, rates in found["images_per_second"].items()} == dict.fromkeys(
        rivals, bench.TURNS
    )
    assert set(found["ratio"]["reference"]) == {1.0}
    assert str(tmp_path) not in json.dumps(found)
    assert not list(tmp_path.glob("*/*"))
    bench.main(args)
    assert "reference" in capsys.readouterr().out


def test_a_folder_is_read_from_archives_too_cold_and_drafted(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "SECONDS", 0.01)
    monkeypatch.setattr(cache, "MEMORY", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "index"))
    root = make_folder(tmp_path / "set", {"a": 4, "b": 4}, {"a": 1, "b": 1}, size=90)
    given = {
        "data": "imagefolder",
        "data_dir": str(root),
        "resolution": 32,
        "batch": 2,
        "lr": 0.1,
        "epochs": 1,
    }
    found = bench.data(resolve(cache_dir=str(tmp_path / "caches"), **given))
    assert {"draft", "tar"} <= set(found["images_per_second"])
    decoded = found["decoding"]
    assert decoded["images"] == 8
    assert {"PIL"} <= decoded["as_pil"].keys() == decoded["images_per_second"].keys()
    assert set(decoded["as_pil"].values()) == {True}
    assert {"uncached", "tar"} <= set(found["images_per_second_cold"])
    assert {len(rates) for rates in found["images_per_second_cold"].values()} == {bench.TURNS}
    assert found["drafted"] == found["difference_draft"]["most"] == 0  # PNG


def test_the_difference_is_that_of_the_same_crops(tmp_path):
    """Zero, up to rounding, if the cache is as large as the photographs; larger for a smaller cache."""
    root = make_folder(tmp_path / "set", {"a": 8}, {"a": 1}, size=120)
    given = {"data": "imagefolder", "data_dir": str(root), "resolution": 64, "batch": 2}
    plain = open_data(resolve(**given)).train
    cached = lambda size: (
        open_data(resolve(cache="disk", cache_dir=str(tmp_path), cache_size=size, **given)).train
    )
    large, middle, small = (bench.changed(plain, cached(size)) for size in (120, 90, 64))
    assert large["difference"]["most"] < 0.5
    assert large["difference"]["mean"] < middle["difference"]["mean"] < small["difference"]["mean"]
    assert (
        large["cache_upsampled"]
        == large["uncached_upsampled"]
        < middle["cache_upsampled"]
        < small["cache_upsampled"]
    )
