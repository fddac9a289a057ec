"""Distillation: the loss against numpy, its laws, the run's key, errors, and resuming."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import call, only_row, released_state, start
from flagged import flags
from resumed import same_run, wait_for, weights
from test_fit import DIGITS

from hbo import nets
from hbo.analysis import results
from hbo.analysis.commands import command
from hbo.config import resolve
from hbo.errors import UserError
from hbo.runs import identity
from hbo.tasks.classify.module import Classify
from hbo.tasks.classify.teacher import Teacher, distilled

pytestmark = pytest.mark.usefixtures("short_networks")

TEN = list("0123456789")
BRIEF = flags(data="digits", epochs=1, limit_batches=4, width=0.1, threads=1, workers=0)
BRIEF += flags(accelerator="cpu", wandb="disabled")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A wider network on the same digits; its averaged weights, which were evaluated, teach."""
    out = tmp_path_factory.mktemp("teacher")
    call("hbo.fit", *BRIEF, "--net", "mobilenetv2", "--width", 0.25, "--ema", 0.5, "--out", out)
    return only_row(out)[1]


def by_hand(logits, teachers, temperature) -> float:
    """Hinton et al. 2015 in numpy: T^2 times the mean over images of sum p (log p - log q)."""
    soft = lambda x: np.exp(x / temperature) / np.exp(x / temperature).sum(1, keepdims=True)
    p, q = soft(teachers.double().numpy()), soft(logits.double().numpy())
    return float(temperature**2 * (p * (np.log(p) - np.log(q))).sum(1).mean())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_loss_is_that_of_hinton(temperature):
    torch.manual_seed(0)
    logits, teachers = 3 * torch.randn(2, 6, 5)
    assert float(distilled(logits, teachers, temperature)) == pytest.approx(
        by_hand(logits, teachers, temperature), rel=1e-5
    )
    assert float(distilled(teachers, teachers, temperature)) == pytest.approx(0, abs=1e-6)


def test_at_a_high_temperature_the_gradient_is_that_of_matched_logits():
    """Section 2.1 of that paper: for large T the gradient is (z - v) / classes, with z and v the zero-mean
    logits.
    """
    torch.manual_seed(0)
    z, v = torch.randn(2, 1, 5, dtype=torch.float64)
    z, v = (z - z.mean()).float().requires_grad_(), (v - v.mean()).float()
    for temperature in (100.0, 200.0):
        (gradient,) = torch.autograd.grad(distilled(z, v, temperature), z)
        assert torch.allclose(gradient, (z - v).detach() / 5, atol=0.01)


def task_of(path, **given) -> Classify:
    torch.manual_seed(1)
    fields = {"data": "digits", "width": 0.1, "distill": str(path), "threads": 1} | given
    return Classify(resolve(**fields), 10, classes=TEN)


def gradients(task, batch):
    task.zero_grad()
    task.training_loss(batch)[0].backward()
    return {name: weight.grad for name, weight in task.net.named_parameters()}


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(0)
    return (
        torch.randint(0, 256, (8, 3, 32, 32), generator=draw, dtype=torch.uint8),
        torch.arange(8),
        torch.arange(8),
    )


@pytest.fixture
def alone(monkeypatch):
    """A task outside a trainer, before the first update."""
    monkeypatch.setattr(Classify, "global_step", 0)


def test_a_weight_of_one_and_an_equal_teacher_give_no_gradient(teacher, batch, alone, monkeypatch):
    """In evaluation mode, as the twin does not use the batch's own statistics."""
    task = task_of(teacher, distill_weight=1.0)
    task.begin()
    assert task.teacher is not None
    trained = gradients(task, batch)
    assert all(grad.abs().max() > 0 for name, grad in trained.items() if name.startswith("classifier"))
    task.teacher.net = copy.deepcopy(task.net).eval()
    task.net.eval()
    monkeypatch.setattr(task, "_set_modes", lambda: None)
    assert all(grad is None or grad.abs().max() < 1e-6 for grad in gradients(task, batch).values())


def test_a_weight_of_zero_gives_the_labels_gradient(teacher, batch, alone):
    taught, plain = task_of(teacher, distill_weight=0.0), task_of(teacher)
    taught.begin()
    ours, theirs = gradients(taught, batch), gradients(plain, batch)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_teacher_is_not_part_of_the_network(teacher):
    """It is not in the weights, the checkpoint, the mode or the optimizer, and it has the averaged weights
    that were evaluated.
    """
    task, plain = task_of(teacher), task_of(teacher)
    before = torch.get_rng_state()
    said = task.begin()
    assert torch.equal(before, torch.get_rng_state())
    assert list(task.state_dict()) == list(plain.state_dict())
    assert [*task.named_parameters()] != []
    assert [name for name, _ in task.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert task.teacher is not None
    task.train()
    assert not task.teacher.net.training
    assert not any(weight.requires_grad for weight in task.teacher.net.parameters())
    theirs = weights(teacher)
    assert all(
        torch.equal(value, theirs[f"averaged.{name}"])
        for name, value in task.teacher.net.state_dict().items()
    )
    assert said["teacher"].startswith("mobilenetv2 trained on digits, 1 epoch, seed 0 (")
    assert identity.of_row(said | {"data": "digits"})["teacher"] == task.run.identity()["teacher"]


def test_the_teacher_sees_the_mixed_image(teacher, batch, alone):
    task = task_of(teacher, mixup=0.4, cutmix=1.0, random_erasing=0.5)
    task.begin()
    assert task.teacher is not None
    seen: list[torch.Tensor] = []
    own: list[torch.Tensor] = []
    task.teacher.net.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    task.net.register_forward_pre_hook(lambda _, given: own.append(given[0]))
    torch.manual_seed(3)
    gradients(task, batch)
    assert torch.equal(seen[0], own[0])
    assert not torch.allclose(seen[0], task.normalised(batch[0]))


# ------------------------------------------------------------ which teacher


def test_a_teacher_is_in_the_key_by_the_contents_of_its_file(tmp_path):
    one, copied, other = (tmp_path / f"{name}.pth" for name in "abc")
    one.write_bytes(b"weights")
    copied.write_bytes(b"weights")
    other.write_bytes(b"others")
    key = lambda **given: resolve(data="digits", **given).key()
    assert key(distill=str(one)) == key(distill=str(copied))
    keys = [
        key(),
        *(key(distill=str(path)) for path in (one, other)),
        key(distill=str(one), distill_temperature=2),
    ]
    assert len({*keys, key(distill=str(one), distill_weight=0.5), key(backbone_checkpoint=str(one))}) == 6


def test_a_network_of_a_zoo_teaches_with_its_published_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    given = {"distill": "torchvision:shufflenet_v2_x0_5", "data": "imagenet"}
    with pytest.raises(
        UserError, match=r"distill=torchvision:shufflenet_v2_x0_5: .*: no such file; --download fetches"
    ):
        resolve(**given).key()
    where = tmp_path / "hub" / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth"
    where.parent.mkdir(parents=True)
    theirs = nets.build(given["distill"], width=None).net.state_dict()
    torch.save(theirs, where)
    run = resolve(**given)
    found = Teacher(run, 1000)
    assert torch.equal(found.net.net.fc.weight, theirs["fc.weight"])
    assert found.words == f"torchvision:shufflenet_v2_x0_5, as published ({run.identity()['teacher']})"
    with pytest.raises(
        UserError, match="has 1000 classes, digits has 10; use a teacher trained on the same ones"
    ):
        Teacher(resolve(**given | {"data": "digits"}), 10, TEN)


def test_the_authors_release_can_be_the_teacher(tmp_path, monkeypatch):
    monkeypatch.setitem(nets.TABLES, "hbonet", nets.HBONET)
    torch.save(released_state("width0.1_div4_k1"), tmp_path / "released.pth")
    found = Teacher(resolve(data="imagenet", distill=str(tmp_path / "released.pth")), 1000)
    assert found.words.startswith("the authors' release (")
    assert found(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


@pytest.mark.parametrize(("classes", "said"), [
    ([*"012345678", "ten"], "has other classes than digits: it has '9'; use a teacher trained on the same ones"),
    (list("9012345678"), "has other classes than digits: in another order"),
    ([*TEN, "ten"], "has other classes than digits: it lacks 'ten'"),
])  # fmt: skip
def test_a_teacher_of_other_classes_is_an_error(teacher, classes, said):
    with pytest.raises(UserError) as refused:
        Teacher(resolve(data="digits", distill=str(teacher)), len(classes), classes)
    assert said in str(refused.value)


@pytest.mark.parametrize(("given", "said"), [
    ({"distill": "/none.pth"}, "distill=/none.pth: no such file"),
    ({"distill_weight": 0.5}, "distill_weight=0.5: needs --distill, a teacher"),
    ({"distill_temperature": 2}, "distill_temperature=2.0: needs --distill, a teacher"),
    ({"distill": "a", "distill_weight": 1.5}, "distill_weight=1.5: must be in [0, 1]"),
    ({"distill": "a", "distill_temperature": 0}, "distill_temperature=0.0: must be positive"),
    ({"distill": "pytorchcv:shufflenet_g3_w3d2"}, "distill=pytorchcv:shufflenet_g3_w3d2: pytorchcv publishes none"),
    ({"distill": "a", "data": "voc"}, "is not used by task=detect"),
])  # fmt: skip
def test_impossible_settings_are_errors(given, said):
    with pytest.raises(UserError) as refused:
        resolve(**{"data": "digits"} | given).key()
    assert said in str(refused.value)


# ------------------------------------------------------------ runs


@pytest.mark.slow
def test_a_distilled_run_resumes_exactly_and_its_row_names_the_teacher(teacher, tmp_path):
    its = shutil.copytree(teacher, tmp_path / "teacher")
    args = [*DIGITS, *flags(mixup=0.2, cutmix=1.0, distill=its, distill_weight=0.5, wandb="disabled")]
    call("hbo.fit", *args, "--out", tmp_path / "whole")
    process = start("hbo.fit", *args, "--out", tmp_path / "cut", "--checkpoint_every", 0)
    wait_for(lambda: list((tmp_path / "cut").glob("*/*/last.ckpt")), process)
    process.kill()
    process.communicate()
    out, _ = call("hbo.fit", *args, "--out", tmp_path / "cut")
    same_run(tmp_path / "whole", tmp_path / "cut")
    row, folder = only_row(tmp_path / "cut")
    assert row["resumed_at"]
    assert row["identity"]["teacher"] in row["teacher"]
    assert row["teacher"].replace("(", "(hash of the file: ") in out
    plain = nets.build("hbonet", nets.Block(k=2), 0.1, None, 10)
    assert row["params"] == sum(weight.numel() for weight in plain.parameters())
    assert not [name for name in weights(folder) if "teacher" in name]
    table = results.load(tmp_path / "cut")
    assert json.loads(json.dumps(identity.of_row(table.to_dict("records")[0]))) == row["identity"]
    assert command(row).endswith("--distill TEACHER")
    shutil.rmtree(its)
    assert "top1" in call("hbo.evaluate", folder, "--json")[0]  # the teacher is no longer needed


@pytest.mark.slow
def test_a_weight_of_zero_is_the_run_without_a_teacher(teacher, tmp_path):
    """Bit for bit, with random draws: the teacher uses none of them."""
    args = [*BRIEF, "--dropout", 0.2, "--drop_path", 0.1, "--mixup", 0.2]
    call("hbo.fit", *args, "--out", tmp_path / "plain")
    call("hbo.fit", *args, "--distill", teacher, "--distill_weight", 0, "--out", tmp_path / "taught")
    (row, folder), (other, its) = only_row(tmp_path / "plain"), only_row(tmp_path / "taught")
    assert row["key"] != other["key"]
    theirs = weights(its)
    assert all(
        torch.equal(value, theirs[name])
        for name, value in weights(folder).items()
        if not name.startswith("train_loss")
    )
    call("hbo.fit", *BRIEF, "--distill", tmp_path / "none", "--out", tmp_path / "third", expect=2)
