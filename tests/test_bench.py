"""hbo.bench: what stands beside what. No test asserts a time."""

import json

import pytest
import torch
from conftest import call

from hbo import config, cost
from hbo.bench import train as bench
from hbo.errors import UserError
from hbo.norm import BatchNorm

TINY = ("--data", "digits", "--batch", "4", "--width", "0.25", "--divisor", "8", "--threads", "1")


@pytest.mark.parametrize("divisor", [2, 8])
def test_mobilenetv2_has_the_same_multiply_adds(divisor):
    found, _ = bench.rivals(config.resolve(data="imagenet", width=0.25, divisor=divisor))
    macs = [cost.macs(config.build_net(found[name][0], 1000), 224) for name in ("channels_last", "mobilenetv2")]
    assert macs[1] == pytest.approx(macs[0], rel=0.03)


def test_plain_is_plain_and_mobilenetv2_takes_the_quick_batch_norm():
    found, _ = bench.rivals(config.resolve(data="imagenet"))
    assert next(iter(found)) == "nchw"
    assert not found["nchw"][0].channels_last
    net = config.build_net(found["mobilenetv2"][0], 10)
    assert all(isinstance(m, BatchNorm) for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_every_rival_takes_every_turn():
    found = json.loads(call("hbo.bench", "train", *TINY, "--json")[0])
    assert found["baseline"] == "nchw"
    assert {name: len(rates) for name, rates in found["images_per_second"].items()} == dict.fromkeys(
        ("nchw", "channels_last", "mobilenetv2"), bench.TURNS
    )
    assert set(found["ratio"]["nchw"]) == {1.0}


def test_a_rival_that_there_cannot_be_is_named():
    found, left_out = bench.rivals(config.resolve(data="imagenet", width=0.1))
    assert "mobilenetv2" not in found
    assert "within 3 %" in left_out["mobilenetv2"]


def test_what_cannot_be_measured_is_said(tmp_path):
    assert "did you mean train?" in call("hbo.bench", "trian", expect=2)[1]
    with pytest.raises(UserError, match=r"hbonet\.py; name a checkout"):
        bench.reference(config.resolve(data="imagenet"), tmp_path)
    (tmp_path / "models" / "imagenet").mkdir(parents=True)
    (tmp_path / "models" / "imagenet" / "hbonet.py").write_text("")
    with pytest.raises(UserError, match="every other switch as by default"):
        bench.reference(config.resolve(data="imagenet", residual=False), tmp_path)
