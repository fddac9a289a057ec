"""hbo.sweep.loading: a plan says when loading, not the network, limits a run. No test asserts a time."""

import pytest
import yaml
from conftest import make_folder

from hbo.config import resolve
from hbo.runs import cluster
from hbo.sweep.__main__ import main
from hbo.sweep.loading import verdict


@pytest.mark.slow
def test_a_plan_says_when_data_is_the_bottleneck(tmp_path, capsys):
    """Photographs of three million pixels for a network at 32 x 32; the cache holds small copies."""
    root = make_folder(tmp_path / "set", {"a": 2, "b": 2}, {"a": 1, "b": 1}, size=1800)
    values = {
        "data": "imagefolder",
        "data_dir": str(root),
        "resolution": 32,
        "width": 0.1,
        "batch": 4,
        "workers": 1,
    }
    values |= {"threads": 1, "out": str(tmp_path / "runs"), "cache_dir": str(tmp_path / "caches")}
    path = tmp_path / "study.yaml"
    path.write_text(
        yaml.safe_dump({"method": "grid", "parameters": {n: {"value": v} for n, v in values.items()}})
    )
    said = []
    for more in ([], ["--set", "cache=disk"]):
        with pytest.raises(SystemExit) as stop:
            main(["plan", str(path), *more])
        assert stop.value.code == 0
        said.append(capsys.readouterr())
    assert "data is the bottleneck: 1 worker loads" in said[0].out
    assert "use --set cache=disk" in said[0].out
    assert "bottleneck" not in said[1].out
    assert "cache:" not in said[1].err
    assert not (tmp_path / "caches").exists()  # a plan leaves nothing behind


def test_the_plan_says_what_to_type(monkeypatch):
    monkeypatch.setattr(cluster, "cores", lambda: 16)
    run = lambda **given: resolve(data="imagenet", **given)
    assert verdict(run(), 500.0, 400.0, 2) == ""
    said = verdict(run(), 100.0, 400.0, 2)
    assert "2 workers load 100 images/s at 224 x 224, hbonet trains 400" in said
    assert said.endswith("use --set cache=disk or --set workers=8")
    assert verdict(run(cache="ram"), 100.0, 400.0, 1).endswith(
        "use --set workers=4 or --set augment=device (on a GPU)"
    )
    assert verdict(run(cache="ram", crop="none"), 100.0, 4000.0, 2).endswith(
        "use more than 16 cores per device"
    )
    assert "workers=" not in verdict(run(devices=8), 100.0, 400.0, 2)


def test_a_missing_folder_is_reported_and_the_plan_printed(tmp_path, capsys):
    path = tmp_path / "study.yaml"
    path.write_text(
        yaml.safe_dump(
            {"method": "grid", "parameters": {"data": {"value": "imagenet"}, "limit_batches": {"value": 1}}}
        )
    )
    with pytest.raises(SystemExit):
        main(["plan", str(path), "--set", f"out={tmp_path}"])
    out = capsys.readouterr().out
    assert "1 runs: 1 missing" in out
    assert "loading was not timed: data=imagenet needs --data_dir" in out
