"""Every runtime gives the module's logits, for every upsampling and every k; one that is not installed is
skipped by name.
"""

import json
import typing

import numpy as np
import pytest
import torch
from test_deploy import shuffled

from hbo import nets
from hbo.block import Block
from hbo.deploy import deploy
from hbo.deploy.runtimes import RUNTIMES, Files, Runtime, named
from hbo.errors import UserError

MODES = typing.get_args(typing.get_type_hints(Block)["upsample"])
CASES = [*[(k, "nearest") for k in range(4)], *[(2, mode) for mode in MODES if mode != "nearest"]]
SIDE = 64


@pytest.fixture
def runtime(request) -> Runtime:
    found = named(request.param)
    if not found.installed():
        pytest.skip(f"{found.title} is not installed: pip install -e '.[{found.extra}]'")
    return found


every_runtime = pytest.mark.parametrize("runtime", RUNTIMES, indirect=True)
pytestmark = pytest.mark.filterwarnings("ignore")  # from the converters


def network(block: Block, classes: int = 7) -> torch.nn.Module:
    torch.manual_seed(0)
    return shuffled(nets.build("hbonet", block, 0.1, num_classes=classes))


def logits(net: torch.nn.Module, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Three smooth images, like photographs, and the module's logits, which differ between the images."""
    draw = torch.Generator().manual_seed(1)
    images = torch.nn.functional.interpolate(
        torch.randn(3, 3, 8, 8, generator=draw), (side, side), mode="bilinear"
    )
    with torch.no_grad():
        out = net(images).numpy()
    assert abs(out - out.mean(0)).max() > 0.03 * abs(out).max(), "the logits do not depend on the image"
    return images.numpy(), out


def off(found: np.ndarray, expected: np.ndarray) -> float:
    """The larger of two relative errors: of the logits, and, times 0.1, of their variation between images."""
    varying = expected - expected.mean(0)
    return max(
        abs(found - expected).max() / abs(expected).max(),
        0.1 * abs(found - found.mean(0) - varying).max() / abs(varying).max(),
    )


def _bytes(files: Files) -> int:
    # OpenVINO's graph is text, larger than a small network's weights.
    return len(files.get(".bin") or next(iter(files.values())))


@every_runtime
@pytest.mark.parametrize(("k", "upsample"), CASES)
def test_the_deployed_network_in_the_runtime_itself(runtime, k, upsample):
    net = network(Block(k=k, upsample=upsample))
    images, expected = logits(net)
    model = runtime.convert(deploy(net, runtime.target), SIDE)
    assert off(runtime.open(model.files, 1)(images), expected) < 1e-4
    if runtime.name in ("executorch", "litert"):  # the whole network in one piece
        assert model.pieces is not None
        assert (model.pieces.pieces, model.pieces.left) == (1, {})


@every_runtime
def test_odd_maps_and_facts(runtime):
    """Deployed: ncnn counts the border of a 2x2 mean with ceil as zeros, so a plain network differs there and
    is an error.
    """
    net = network(Block(k=2, contract="avgpool"))
    images, expected = logits(net, 75)
    facts = {"classes": json.dumps(["caf\u00e9", "b"]), "mean": "[0.5]"}
    model = runtime.convert(deploy(net, runtime.target), 75, facts)
    assert off(runtime.open(model.files, 2)(images), expected) < 1e-4
    assert runtime.facts(model.files) == ({} if runtime.name == "ncnn" else facts)


@every_runtime
def test_a_plain_network(runtime):
    net = network(Block(k=2))
    images, expected = logits(net)
    assert off(runtime.open(runtime.convert(net, SIDE).files, 1)(images), expected) < 1e-4


def test_ncnn_takes_a_plain_mobilenetv2_whose_dropout_leaves_an_alias():
    runtime = named("ncnn")
    if not runtime.installed():
        pytest.skip("ncnn is not installed: pip install -e '.[ncnn]'")
    torch.manual_seed(0)
    net = shuffled(nets.build("mobilenetv2", width=0.1, num_classes=7))
    images, expected = logits(net)
    assert off(runtime.open(runtime.convert(net, SIDE).files, 1)(images), expected) < 1e-4


@every_runtime
def test_an_int8_file_is_smaller_finite_and_depends_on_the_image(runtime):
    """With untrained weights its error means little: `hbo.export --int8` measures a run's accuracy."""
    if not runtime.int8:
        with pytest.raises(UserError, match=f"int8: not made for {runtime.title}: "):
            runtime.require(int8=True)
        return
    net = network(Block(k=1))
    images, expected = logits(net)
    deployed = deploy(net, runtime.target)
    model = runtime.quantize(deployed, SIDE, images)
    assert _bytes(model.files) < 0.85 * _bytes(runtime.convert(deployed, SIDE).files)
    found = runtime.open(model.files, 1)(images)
    assert np.isfinite(found).all()
    assert abs(found - found.mean(0)).max() > 0.1 * abs(expected - expected.mean(0)).max()


@pytest.mark.parametrize("upsample", MODES)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_upsampling_as_convolutions_is_the_same_function(k, upsample):
    """What XNNPACK gets, in double precision and with odd maps; nearest is bit-identical."""
    net = network(Block(k=k, upsample=upsample)).double()
    with torch.no_grad():
        for size in ((64, 64), (75, 90)):
            x = torch.randn(2, 3, *size, dtype=torch.float64)
            resized, convolved = deploy(net)(x), deploy(net, "executorch")(x)
            assert (convolved - net(x)).abs().max() < 1e-9 * net(x).abs().max()
            if upsample == "nearest":
                assert convolved.equal(resized)
    names = {type(m).__name__ for m in deploy(net, "executorch").modules()}
    assert not names & ({"Upsample"} if upsample != "bilinear" else set())


def test_an_unknown_target_is_refused():
    with pytest.raises(UserError, match=r"target=openvin: choose from onnx, .*did you mean openvino\?"):
        deploy(nets.build("hbonet", width=0.1), "openvin")


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_missing_runtime_names_its_extra(name, monkeypatch):
    runtime = named(name)
    monkeypatch.setattr(type(runtime), "modules", ("no_such_package.part",))
    assert not runtime.installed()
    typed = (
        rf"make \.venv-{name}/installed" if name == "litert" else rf"pip install -e '\.\[{runtime.extra}\]'"
    )
    with pytest.raises(UserError, match=f"no_such_package is not installed; {typed}"):
        runtime.require()
