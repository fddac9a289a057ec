"""OpenVINO's own: the numbers in its int8 files, the images that a file takes, and the process that it runs in."""

import subprocess
import sys

import numpy as np
import pytest
from test_runtimes import SIDE, logits, network

from hbo.block import Block
from hbo.deploy import deploy
from hbo.deploy.runtimes import named


def test_openvinos_int8_weights_overflow_on_no_processor(short):
    """Without VNNI two products of 8 bits are added in 16: 2 * 255 * 64 fits, 2 * 255 * 127 does not."""
    openvino = pytest.importorskip("openvino")
    net = network(Block(k=1))
    model = named("openvino").quantize(deploy(net, "openvino"), SIDE, logits(net)[0])
    stored = openvino.Tensor(np.frombuffer(model.files[".bin"], dtype=np.uint8))
    nodes = openvino.Core().read_model(model.files[".xml"], stored).get_ops()
    constants = [node for node in nodes if node.get_type_name() == "Constant"]
    weights = [node.data for node in constants if node.get_element_type().get_type_name() == "i8"]
    several = [
        one for one in weights if one.ndim == 4
    ]  # a depthwise one has 5 dimensions, and adds otherwise
    assert len(several) > 5
    assert max(abs(one.astype(int)).max() for one in several) <= 64
    enlarged = [node for node in nodes if node.get_type_name() == "Interpolate"]
    assert enlarged
    before = {node.input_value(0).get_node().get_type_name() for node in enlarged}
    assert "FakeQuantize" not in before  # resizing 8 bits takes longer than resizing floats


def test_openvinos_file_takes_any_number_of_images_of_its_size_alone(short):
    """Its converter leaves height and width open, and then every operator works out its shapes each time."""
    openvino = pytest.importorskip("openvino")
    runtime, net = named("openvino"), network(Block(k=1))
    images, expected = logits(net)
    for model in (
        runtime.convert(deploy(net, "openvino"), SIDE),
        runtime.quantize(deploy(net, "openvino"), SIDE, images),
    ):
        stored = openvino.Tensor(np.frombuffer(model.files[".bin"], dtype=np.uint8))
        takes = openvino.Core().read_model(model.files[".xml"], stored).inputs[0].partial_shape
        assert str(takes) == f"[?,3,{SIDE},{SIDE}]"
        session = runtime.open(model.files, 1)
        together = session(images)
        assert together.shape == expected.shape
        assert abs(session(images[:1]) - together[:1]).max() <= 1e-4 * abs(together).max()
        with pytest.raises(RuntimeError):
            session(images[:, :, :-8])


SIGNALLED = """
import gc, signal
import numpy as np
from torch import nn
from hbo.deploy.runtimes import named
runtime, images = named("openvino"), np.random.rand(4, 3, 32, 32).astype("float32")
net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
files = [runtime.convert(net, 32).files, runtime.quantize(net, 32, images).files]
opened = [runtime.open(one, 1) for one in files * 2]
for session in opened:
    session(images), session(images[:1])
del session
while opened:
    opened.pop(0)  # the first to come is the first to go
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""


def test_after_openvino_a_signal_still_reaches_python():
    """Its core changes the stack that signals are handled on, and may leave one that is gone."""
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["handled"]), done.stderr
