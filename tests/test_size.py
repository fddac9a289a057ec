"""The blocks' costs add up to the network's, and the width found for given multiply-adds is the nearest."""

import pytest

from hbo import cost, nets
from hbo.block import Block
from hbo.config import resolve
from hbo.errors import UserError
from hbo.nets import size

BLOCKS = [Block(), Block(k=0), Block(k=3), Block(k=2, scheme="uniform", upsample="pixelshuffle", concat_ratio=0.25, contract="maxpool")]  # fmt: skip


@pytest.mark.parametrize("net", nets.TABLES)
@pytest.mark.parametrize(
    ("width", "divisor", "resolution", "classes"), [(0.25, 8, 224, 1000), (0.33, 2, 97, 2), (1.3, 4, 64, 10)]
)
def test_the_blocks_add_up_to_the_network(net, width, divisor, resolution, classes):
    has_block = any(row.block == "hb" for row in nets.TABLES[net].stages)
    for block in BLOCKS if has_block else [Block()]:
        whole = cost.count(nets.build(net, block, width, divisor, classes), resolution)["total"]
        assert size.total(net, block, width, divisor, "release", resolution, classes) == whole


@pytest.mark.parametrize("net", nets.TABLES)
def test_no_width_is_nearer(net):
    run = resolve(net=net, match_macs=44.1)
    assert run.divisor == 2
    assert run.width is not None
    count = lambda width: cost.macs(nets.build(net, Block(), width, 2), 224) / 1e6
    reached = count(run.width)
    _, said = size.width_for(44.1, net, Block(), 2, "release")
    assert said == reached
    others = [count(round(run.width + step / 1000, 3)) for step in range(-30, 31, 3)]
    assert min(abs(other - 44.1) for other in others) >= abs(reached - 44.1)
    assert abs(reached / 44.1 - 1) <= 0.03


def test_the_width_does_not_depend_on_the_data_set():
    widths = {
        resolve(data=data, match_macs=44.1, net="mobilenetv2").width
        for data in ("elpv", "cifar10", "imagenet")
    }
    assert len(widths) == 1


def test_too_coarse_a_divisor_is_an_error_that_names_the_nearest():
    with pytest.raises(UserError, match=r"39\.2 .* and 55\.8"):
        resolve(net="mobilenetv2", match_macs=44.1, divisor=8)


def test_a_matched_run_is_the_run_of_that_width():
    assert resolve(match_macs=44.1).key() == resolve(width=0.292, divisor=2).key()
