"""Files of weights: their code never runs; those of the release are loaded if they match, with an error that
names the mismatch if not.
"""

import json
import pickle

import pytest
import torch
from conftest import REFERENCE, released_state

from hbo.block import Block
from hbo.errors import UserError
from hbo.files import checkpoint_digest, located
from hbo.nets import build
from hbo.runs.weights import identify, load_released, read, released_names

LAYOUTS = json.loads((REFERENCE / "checkpoint_keys.json").read_text())


def parts(variant: str) -> tuple[float, int, int]:
    width, divisor, k = variant.split("_")
    return float(width[5:]), int(divisor[3:]), int(k[1:])


@pytest.mark.parametrize("variant", list(LAYOUTS))
def test_names_and_shapes_are_those_of_the_release(variant):
    width, divisor, k = parts(variant)
    net = build("hbonet", Block(k=k), width, divisor)
    names = released_names(net)
    assert {names[key]: list(value.shape) for key, value in net.state_dict().items()} == LAYOUTS[variant]


def test_a_file_of_another_variant_is_named(tmp_path):
    path = tmp_path / "hbonet.pth"
    torch.save(released_state("width0.25_div8_k2"), path)
    with pytest.raises(UserError) as error:
        load_released(build("hbonet", Block(k=1), 0.5), path)
    assert "width 0.25, divisor 8, k 2, 1000 classes" in str(error.value)
    net = build("hbonet", Block(k=2), 0.25, 8)
    before = [p.clone() for p in net.parameters()]
    load_released(net, path)
    assert not all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("variant", list(LAYOUTS))
def test_identify(variant):
    assert [tuple(v) for v in identify(released_state(variant))] == [(*parts(variant), 1000)]
    assert identify({"weight": torch.zeros(1)}) == []


def test_wrapped_and_reordered_files_load():
    state = released_state("width0.1_div4_k1")
    net = build("hbonet", width=0.1)
    wrapped = {"state_dict": {f"module.{key}": state[key] for key in sorted(state)}}
    load_released(net, wrapped)
    assert torch.equal(net.classifier.weight, state["classifier.weight"])


def test_nothing_is_loaded_if_one_shape_differs():
    state = released_state("width0.1_div4_k1")
    state["features.3.conv.2.weight"] = torch.zeros(1)
    net = build("hbonet", width=0.1)
    before = net.classifier.weight.clone()
    with pytest.raises(UserError, match=r"features\.3\.conv\.2\.weight"):
        load_released(net, state)
    assert torch.equal(before, net.classifier.weight)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of the checkpoint ran')",)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"state_dict": Evil()}))
    for make in (
        lambda: path.write_bytes(pickle.dumps({"a": Evil()})),
        lambda: torch.save({"a": Evil()}, path),
    ):
        make()
        with pytest.raises(UserError, match="would run code"):
            read(path)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match=r"text\.pth"):
        read(tmp_path / "text.pth")


def test_the_nearest_runs_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for key in ("8faa71d03b", "0123456789"):
        (tmp_path / "runs" / "small" / key).mkdir(parents=True)
        (tmp_path / "runs" / "small" / key / "last.ckpt").touch()
    for asked, said in (
        ("8faa71d03c", "no such file; the nearest runs: runs/small/8faa71d03b"),
        ("runs/small/8faa71d03c", "no such file; the nearest runs: runs/small/8faa71d03b"),
        ("runs/small", "runs/small is a study's folder: name a run of it, such as runs/small/0123456789"),
    ):
        with pytest.raises(UserError, match=said):
            read(located(asked))
        with pytest.raises(UserError, match=said):  # --backbone_checkpoint, --distill
            checkpoint_digest(asked)


def test_switches_other_than_the_releases_are_errors():
    """Their weights have the same names and shapes, but the network would differ."""
    state = released_state("width0.25_div8_k2")
    with pytest.raises(UserError, match="bilinear"):
        load_released(build("hbonet", Block(k=2, upsample="bilinear"), 0.25, 8), state)
