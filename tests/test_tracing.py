"""A trace is the built block: its shapes, costs and switches."""

import itertools
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from test_block import CASES

from hbo.analysis.diagrams import KINDS
from hbo.analysis.tracing import trace
from hbo.block import Block, HarmoniousBottleneck, InvertedResidual
from hbo.nets import counting

STRIDES, DEPTHS = (1, 2), (0, 1, 2, 3)
BLOCKS = {
    replace(Block(k=k), **({} if name == "k" else {name: value})) for name, value in CASES for k in DEPTHS
}
NAMED = KINDS.keys() - {"other"} | {"concat", "slice", "pad", "crop"}
SIZES = (16, 17)  # an odd map grows beyond its partner and is cropped


def make(block: Block, stride: int = 1, cin: int = 6, cout: int = 8) -> HarmoniousBottleneck:
    torch.manual_seed(0)
    return HarmoniousBottleneck(cin, cout, stride, 2, block)


@pytest.fixture(autouse=True)
def _threads():
    """Instead of the suite's two threads: waking the second takes longer than these small maps, above all on
    a busy machine.
    """
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def traced():
    """Every value of every switch at every depth and stride: module, block, stride, input size, steps."""
    torch.set_num_threads(1)  # this fixture runs before the per-test one
    cases = itertools.product(BLOCKS, STRIDES, SIZES)
    modules = [(make(block, stride).eval(), block, stride, size) for block, stride, size in cases]
    return [(*case, trace(case[0], 6, case[3])) for case in modules]


def kinds(block: Block, stride: int = 1, **widths: int) -> list[str]:
    return [step.kind for step in trace(make(block, stride, **widths), widths.get("cin", 6), 16)]


def test_a_trace_ends_in_the_blocks_output(traced):
    with torch.no_grad():
        for module, block, stride, size, steps in traced:
            x = torch.zeros(1, 6, size, size)
            assert steps[0].shape == x.shape[1:]
            assert steps[-1].shape == module(x).shape[1:], (block, stride, size)


def test_a_trace_has_the_counted_cost(traced):
    for module, block, stride, size, steps in traced:
        counted, _ = counting.pass_through(module, torch.zeros(1, 6, size, size))
        assert sum(step.macs for step in steps) == counted["Global"].macs > 0, (block, stride, size)


def test_every_map_has_earlier_inputs_and_is_used(traced):
    for _, block, stride, _, steps in traced:
        assert all(i < n for n, step in enumerate(steps) for i in step.inputs)
        assert {i for step in steps for i in step.inputs} == set(range(len(steps) - 1)), (block, stride)
        assert all(bool(step.inputs) == (n > 0) for n, step in enumerate(steps))
        unnamed = {step.operation for step in steps if step.kind not in NAMED}
        assert not unnamed, (
            f"{', '.join(unnamed)}: hbo/analysis/tracing.py must say its kind: _describe for a module, _Recorder"
            " for a function in forward"
        )


def test_joins_fit_their_inputs(traced):
    for *_, steps in traced:
        for step in steps:
            given = [steps[i].shape for i in step.inputs]
            if step.kind == "add":
                assert given == [step.shape] * 2
            elif step.kind == "concat":
                assert sum(shape[0] for shape in given) == step.shape[0]
                assert {shape[1:] for shape in given} == {step.shape[1:]}
            else:
                assert len(given) == (step.kind != "input")


def test_there_are_as_many_halvings_as_contraction_units_and_strided_shortcuts(traced):
    for _, block, stride, _, steps in traced:
        halved = [
            s
            for s in steps[1:]
            if s.kind in ("depthwise", "pool") and s.shape[1] == -(-steps[s.inputs[0]].shape[1] // 2)
        ]
        smaller = [s for s in steps[1:] if s.kind != "crop" and s.shape[1] < steps[s.inputs[0]].shape[1]]
        assert halved == smaller
        main = max(block.k, stride - 1)  # at k = 0 the 3 x 3 convolution has the stride
        pooled = stride == 2 and any(s.kind in ("add", "concat") for s in steps)  # for the shortcuts
        assert len(halved) == main + pooled, (block, stride)


def test_the_papers_block_has_its_parts_in_order():
    """Section 3.3 at k = 1: contract, transform, expand, add, smooth, concatenate."""
    steps = trace(make(Block(), cin=36, cout=36), 36, 56)
    assert [(step.kind, step.shape[:2], step.inputs) for step in steps] == [
        ("input", (36, 56), ()),
        ("depthwise", (36, 28), (0,)),
        ("pointwise", (72, 28), (1,)),
        ("depthwise", (72, 28), (2,)),
        ("pointwise", (18, 28), (3,)),
        ("upsample", (18, 56), (4,)),
        ("slice", (18, 56), (0,)),
        ("add", (18, 56), (5, 6)),
        ("depthwise", (18, 56), (7,)),
        ("slice", (18, 56), (0,)),
        ("concat", (36, 56), (9, 8)),
    ]
    assert [steps[6].operation, steps[9].operation] == ["first 18 channels", "last 18 channels"]
    assert steps[2].operation == "PWConv BN ReLU6"
    assert steps[4].operation == "PWConv BN"


def test_a_function_in_forward_is_named_like_a_module():
    """A switch may be written as a function; else every value of it would have the same trace."""

    class Clipped(HarmoniousBottleneck):
        def forward(self, x):
            return 2 * F.relu6(super().forward(x))

    module = Clipped(6, 8, 1, 2, Block(k=2))
    assert [step.kind for step in trace(module, 6, 16)] == kinds(Block(k=2))
    assert trace(module, 6, 16)[-1].operation == "Concat relu6 mul"


def test_a_residual_of_fewer_channels_is_filled_with_zeros():
    steps = trace(make(Block(k=2, concat_ratio=0), stride=2, cin=36, cout=72), 36, 16)
    assert [step.operation for step in steps if step.kind == "pad"] == ["36 zero channels"]


@pytest.mark.parametrize("k", DEPTHS)
@pytest.mark.parametrize("stride", STRIDES)
def test_a_part_that_is_switched_off_is_absent(k, stride):
    whole = Block(k=k, scheme="uniform")
    assert {"add", "concat"} <= set(kinds(whole, stride))
    assert "add" not in kinds(replace(whole, residual=False), stride)
    assert "concat" not in kinds(replace(whole, concat_ratio=0.0), stride)
    assert "add" in kinds(Block(k=k), stride) or (k, stride) == (1, 2)  # an exception in the release


@pytest.mark.parametrize("name", [field.name for field in fields(Block)])
def test_every_value_of_a_switch_changes_the_trace(name):
    """Otherwise it is parsed but ignored. Two bases, as some switches have no effect at some k."""
    values = [value for field, value in CASES if field == name]
    pictures = {
        tuple(
            tuple(trace(make(replace(base, **{name: v}), stride, 12, 16), 12, 16))
            for base in (Block(k=2), Block())
            for stride in STRIDES
        )
        for v in values
    }
    alike = len(values) - len(pictures)  # a number: the pictures themselves are long
    assert not alike, (
        f"{name}: some of its values have the same trace; hbo/analysis/tracing.py must show the change:"
        " _describe for a module, _Recorder for a function in forward"
    )
    assert len(values) > 1


def test_mobilenetv2s_block_adds_only_if_the_shape_stays():
    for cout, stride, expand in [(6, 1, 6), (6, 1, 1), (8, 1, 6), (6, 2, 6)]:
        module = InvertedResidual(6, cout, stride, expand)
        steps = trace(module, 6, 16)
        assert (steps[-1].kind == "add") == (cout == 6 and stride == 1)
        assert (
            sum(step.macs for step in steps)
            == counting.pass_through(module, torch.zeros(1, 6, 16, 16))[0]["Global"].macs
        )


def test_a_trace_does_not_change_the_module():
    module = make(Block(k=2)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random = torch.get_rng_state()
    trace(module, 6, 16)
    assert all(m.training and not m._forward_hooks and "forward" not in vars(m) for m in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
