"""Every runtime gives the module's logits for photographs, for every upsampling and every k; one that is not
installed here runs these tests in `.venv-NAME` (`make runtimes`), and is skipped by name where there is none.

    PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 .venv-litert/bin/python -m pytest tests/test_runtimes.py tests/test_export.py -k litert
"""

import functools
import json
import os
import re
import subprocess
import typing

import numpy as np
import pytest
import torch
from conftest import ROOT, call
from einops import rearrange
from sklearn.datasets import load_sample_images
from test_deploy import shuffled

from hbo import nets
from hbo.bench import operators
from hbo.block import Block
from hbo.data.preprocess import MEAN, STD
from hbo.deploy import deploy
from hbo.deploy.enlarging import Copies, Repeat
from hbo.deploy.lanes import LANES
from hbo.deploy.runtimes import RUNTIMES, Files, Runtime, named
from hbo.errors import UserError

MODES = typing.get_args(typing.get_type_hints(Block)["upsample"])
CASES = [(0, "nearest"), *[(k, mode) for k in (1, 2, 3) for mode in MODES]]  # k = 0 upsamples nothing
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


@functools.cache
def photographs(side: int = SIDE) -> torch.Tensor:
    """32 pieces of the two photographs that come with scikit-learn, normalised, (32, 3, side, side)."""
    pieces = []
    for pixels in load_sample_images().images:
        photograph = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
        whole = torch.nn.functional.interpolate(
            photograph, (4 * side, 4 * side), mode="bilinear", antialias=True
        )
        pieces.append(rearrange(whole, "1 c (i h) (j w) -> (i j) c h w", i=4, j=4))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (torch.cat(pieces) - mean) / std


def logits(net: torch.nn.Module, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """The photographs, and the module's logits, which differ between them."""
    images = photographs(side)
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


def check_deployed(runtime: Runtime, k: int, upsample: str) -> None:
    net = network(Block(k=k, upsample=upsample))
    images, expected = logits(net)
    model = runtime.convert(deploy(net, runtime.target), SIDE)
    assert off(runtime.open(model.files, 1)(images), expected) < 1e-4
    if runtime.name in ("executorch", "litert"):  # the whole network in one piece
        assert model.pieces is not None
        assert (model.pieces.pieces, model.pieces.left) == (1, {})


@every_runtime
def test_the_deployed_network_in_the_runtime_itself(runtime):
    check_deployed(runtime, 2, "nearest")


@pytest.mark.slow
@every_runtime
@pytest.mark.parametrize(("k", "upsample"), CASES)
def test_every_upsampling_in_the_runtime_itself(runtime, k, upsample, short):
    check_deployed(runtime, k, upsample)


@every_runtime
def test_odd_maps_and_facts(runtime, short):
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
def test_a_plain_network(runtime, short):
    """In the layout that training leaves it in: channels-last."""
    net = network(Block(k=2)).to(memory_format=torch.channels_last)
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
def test_an_int8_file_is_smaller_finite_and_depends_on_the_image(runtime, short):
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


@pytest.mark.parametrize("target", ["executorch", "litert"])
@pytest.mark.parametrize("upsample", MODES)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_upsampling_for_xnnpack_is_the_same_function(k, upsample, target, short):
    """In double precision and with odd maps; nearest is bit-identical."""
    net = network(Block(k=k, upsample=upsample)).double()
    lowered = deploy(net, target)
    with torch.no_grad():
        for size in ((64, 64), (75, 90)):
            x = torch.randn(2, 3, *size, dtype=torch.float64)
            assert (lowered(x) - net(x)).abs().max() < 1e-9 * net(x).abs().max()
            if (target, upsample) == ("executorch", "nearest"):  # litert's changes PyTorch's order in memory
                assert lowered(x).equal(deploy(net)(x))
    names = {type(m).__name__ for m in lowered.modules()}
    assert not names & ({"Upsample"} if upsample != "bilinear" else set())


def test_operators_are_added_up_by_kind_without_the_first_image():
    events = [
        ("Convolution DWConv", [90.0, 3.0, 5.0, 4.0]),
        ("Convolution DWConv", [9.0, 1.0, 1.0, 2.0]),
        ("Add", [0.0, 6.0, 7.0, 6.0]),
        ("Constant", [8.0]),
    ]
    found = operators.by_kind(events)
    assert found == {"Convolution DWConv": (2, 4.0, 5.0), "Add": (1, 6.0, 6.0)}
    assert [
        line.split() for line in operators.table({"own": found, "other": {"Add": found["Add"]}}).splitlines()
    ] == [
        ["own", "other"],
        ["Add", "6", "(1)", "6", "(1)"],
        ["Convolution", "DWConv", "4", "(2)"],
        ["all", "10", "(3)", "6", "(1)"],
    ]


def test_where_xnnpack_s_time_goes_is_what_the_file_says():
    folder = ROOT / "ablations" / "bench"
    kinds = json.loads((folder / "operators_k1.json").read_text())["kinds"]
    own, rival = (sum(kind["least"] for kind in kinds[name].values()) for name in ("own", "mobilenetv2"))
    up = kinds["own"]["Deconvolution Subconv2D"]
    told = (folder / "README.md").read_text()
    assert (
        f"it is {own / rival:.2f}, and without any upsampling it would still be {(own - up['least']) / rival:.2f}"
        in (" ".join(told.split()))
    )
    assert f"| upsampling | {up['least']:.0f} ({up['operators']}) |  |" in told
    assert own / rival > 1.2  # the goal: reached, the text must say so


def test_where_openvino_s_time_goes_is_what_the_file_says():
    folder = ROOT / "ablations" / "bench"
    kinds = json.loads((folder / "operators_openvino_k1.json").read_text())["kinds"]
    all_of = lambda name, *but: sum(of["least"] for kind, of in kinds[name].items() if kind not in but)
    own, rival, bare = all_of("own"), all_of("mobilenetv2"), all_of("own", "Subgraph", "Interpolate")
    told = " ".join((folder / "README.md").read_text().split())
    assert f"takes {own / rival:.2f} times MobileNetV2's time" in told
    assert f"without upsampling and additions it would take {bare / rival:.2f}" in told
    eight = [all_of("own int8"), all_of("mobilenetv2 int8")]
    assert (
        f"| all | {own:.0f} (120) | {eight[0]:.0f} (121) | {rival:.0f} (55) | {eight[1]:.0f} (56) |" in told
    )
    assert "Subgraph" not in kinds["mobilenetv2"]  # additions that are fused with nothing
    assert kinds["own"]["Conv 1x1"]["least"] < kinds["mobilenetv2"]["Conv 1x1"]["least"]
    larger, smaller = (kinds[net]["Conv 5x5 depthwise"]["least"] for net in ("own int8", "own"))
    assert round(larger / smaller, 1) == 1.3
    assert "5x5 ones by a third" in told


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["executorch"], indirect=True)
def test_each_of_xnnpack_s_operators_is_timed(runtime):
    """As many upsamplings as the network has bottlenecks that upsample, all inside the delegate."""
    # At 0.1 no MobileNetV2 has its multiply-adds.
    net = nets.build("hbonet", Block(k=2), 0.15, num_classes=1000)
    ups = [m for m in deploy(net, runtime.target).modules() if isinstance(m, Repeat)]
    tiny = ("--data", "imagenet", "--width", "0.15", "--k", "2", "--resolution", "64", "--eval_resize", "64")
    found = json.loads(call("hbo.bench", "operators", *tiny, "--json")[0])["kinds"]
    assert found["own"]["Deconvolution Subconv2D"]["operators"] == len(ups)
    assert "Deconvolution Subconv2D" not in found["mobilenetv2"]


@pytest.mark.parametrize(
    "runtime", [name for name in operators.TRACED if name != "executorch"], indirect=True
)
def test_each_convolution_and_upsampling_is_timed(runtime, short):
    """As many as the deployed network has, each in every turn."""
    net = deploy(network(Block(k=2)), runtime.target)
    files = {name: runtime.convert(net, SIDE).files for name in ("one", "other")}
    found = operators.timed(runtime, files, SIDE)
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    ups = sum(isinstance(m, torch.nn.Upsample) for m in net.modules())
    for kinds in found.values():
        timed = {kind: of for kind, of in kinds.items() if "Conv" in kind}
        assert sum(of.operators for of in timed.values()) == len(convolutions)
        if runtime.name == "onnx":
            assert kinds["Upsample"].operators == ups
        else:
            assert kinds["Interpolate"].operators >= ups
        depthwise = sum(of.operators for kind, of in kinds.items() if "depthwise" in kind)
        assert depthwise == sum(m.groups == m.in_channels for m in convolutions)
        assert all(0 < of.least <= of.median for of in timed.values())


def test_a_runtime_without_a_tracer_says_so():
    with pytest.raises(UserError, match="to=ncnn: ncnn's operators are not traced here"):
        named("ncnn").traced({})


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_nearest_upsampling_is_repeated_to_the_bit(factor):
    x = torch.randn(2, 48, 3, 5)
    expected = torch.nn.functional.interpolate(x, scale_factor=factor, mode="nearest")
    for up in (Copies(factor), Repeat(48, factor, LANES).float(), Repeat(48, factor, 48).float()):
        assert up(x).equal(expected)


def test_a_transposed_convolution_is_in_groups_of_a_register_but_in_litert():
    """LiteRT's converter would slice the map for each group."""
    net = nets.build("hbonet", Block(k=1, upsample="transposed"), 0.25, 8)
    for target, groups in (("executorch", {LANES}), ("litert", {16, 32, 48})):
        ups = [m for m in deploy(net, target).modules() if isinstance(m, torch.nn.ConvTranspose2d)]
        assert {m.in_channels // m.groups for m in ups} <= groups
        assert any(m.in_channels > LANES for m in ups)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_in_its_own_environment(name):
    """These tests, and the example of docs/deploy.md on an exported run, in `.venv-NAME`."""
    python = ROOT / f".venv-{name}" / "bin" / "python"
    if named(name).installed():
        pytest.skip(f"{name} is installed here: the other tests are of it")
    if not python.exists():
        pytest.skip(f"{name} is not installed: make .venv-{name}/installed")
    if subprocess.run([python, "-c", "import beartype, pytest"], capture_output=True).returncode:
        pytest.skip(f".venv-{name} has no pytest: make .venv-{name}/installed")
    files = ("tests/test_runtimes.py", "tests/test_openvino.py", "tests/test_export.py")
    # Plugins from a runtime's packages may not work with the pytest there.
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [python, "-m", "pytest", "-p", "no:cacheprovider", *files, "-k", name],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=3600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed > len(CASES), done.stdout


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
    with pytest.raises(
        UserError, match=f"^{re.escape(runtime.title)}: no_such_package is not installed; {typed}"
    ):
        runtime.require()
