"""Data: fixed splits, order as a function of (seed, epoch, index), broken folders found before training."""

import shutil
from collections import Counter

import pytest
import torch
from conftest import annotate, call, make_folder, make_market, make_voc, only_row
from flagged import flags
from PIL import Image
from torchvision.transforms import v2

from hbo.config import resolve
from hbo.data import images as in_memory
from hbo.data.sampling import EvalBatches, TrainBatches, at_most_per_class, hashed, loader, seeded, split
from hbo.data.sources import Source, Stack, read_image
from hbo.errors import DataError
from hbo.tasks.build import open_data


@pytest.fixture(scope="module")
def elpv():
    return open_data(resolve())


def test_elpv_is_the_published_set_split_75_25_by_label_and_type(elpv):
    import elpv_dataset
    import pandas as pd

    assert (len(elpv.train), len(elpv.val)) == (1968, 656)
    assert elpv.majority == pytest.approx(0.69, abs=0.005)
    labels = elpv.train.labels + elpv.val.labels
    table = pd.read_csv(f"{elpv_dataset.__path__[0]}/data/labels.csv", sep=r"\s+", header=None)
    assert sum(labels) == (table[1] > 0.5).sum()
    assert sum(elpv.val.labels) / 656 == pytest.approx(sum(labels) / 2624, abs=0.002)


def test_elpv_images_are_the_packages_resized(elpv):
    """The validation images match torchvision on the package's own loader: same pixels, same labels, no
    training image.
    """
    from elpv_dataset.utils import load_dataset

    images, probability, types = load_dataset()
    strata = [(int(p > 0.5), t) for p, t in zip(probability, types, strict=True)]
    train, val = split(strata, 0.25, salt="elpv")
    assert sorted(train + val) == list(range(2624))
    resize = v2.Compose(
        [v2.Resize(elpv_size := elpv.val[0, 0][0].shape[1], antialias=True), v2.CenterCrop(elpv_size)]
    )
    for place in (0, 100, 655):
        image, label, index = elpv.val[0, place]
        assert (label, index) == (strata[val[place]][0], place)
        assert torch.equal(image, resize(torch.from_numpy(images[val[place]])[None]).expand(3, -1, -1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("side", [24, 32, 47])
def test_many_images_in_memory_are_resized_as_each_by_itself(channels, last, side, monkeypatch):
    """To the bit and in the same layout, which decides how later steps round; CIFAR's has channels last."""
    monkeypatch.setattr(in_memory, "AT_ONCE", 7)
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (20, channels, 32, 32), dtype=torch.uint8, generator=draw)
    pixels = pixels.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    fixed = v2.Compose(in_memory.whole(side, side))
    found = in_memory.prepared(Source(Stack(pixels), [0] * 20).part(list(range(19, -1, -1))), fixed)
    for image, alone in zip(found, map(fixed, pixels.flip(0)), strict=True):
        assert torch.equal(image, alone)
    if channels > 1:
        assert found[0].stride() == fixed(pixels[0]).stride()


def test_the_split_is_fixed():
    assert split(list("aabbbb"), 0.5) == ([1, 4, 5], [0, 2, 3])
    assert hashed("elpv", 0) == 6556913993175222993


def test_per_class_limits_only_the_training_images():
    """The same number per class, the 10 among the 20; a smaller class keeps all its images."""
    whole, ten, twenty = (open_data(resolve(data="digits", batch=8, per_class=n)) for n in (None, 10, 20))
    assert Counter(ten.train.labels) == dict.fromkeys(range(10), 10)
    images = [
        {image.numpy().tobytes() for image, _, _ in (d.train[0, i] for i in range(len(d.train)))}
        for d in (ten, twenty, whole)
    ]
    assert images[0] < images[1] < images[2]
    assert len(ten.val) == len(whole.val)
    labels = [0, 1, 0, 0, 1, 0]
    assert [labels[i] for i in at_most_per_class(labels, 3)].count(0) == 3
    assert len(at_most_per_class(labels, 3)) == 5


def test_holdout_splits_only_the_training_images():
    whole, part = open_data(resolve(data="digits")), open_data(resolve(data="digits", holdout=0.2))
    assert len(part.train) + len(part.val) == len(whole.train)
    assert len(part.val) == round(0.2 * len(whole.train))
    pixels = lambda images: {images[0, i][0].numpy().tobytes() for i in range(len(images))}
    trained, held, reported = pixels(part.train), pixels(part.val), pixels(whole.val)
    assert trained | held == pixels(whole.train)
    assert len(held & reported) <= len(pixels(whole.train) & reported)  # except for identical digits


def batches_of(images, workers: int = 0, seed: int = 0, rank: int = 0, world: int = 1, done: int = 0):
    order = TrainBatches(len(images), 16, seed, rank, world, progress=lambda: done)
    return list(loader(images, order, workers))


def stacked(batches) -> torch.Tensor:
    return torch.cat([images for images, _, _ in batches])


@pytest.fixture(scope="module")
def augmented():
    return open_data(
        resolve(data="fake", crop="random", flip="both", jitter=0.3, resolution=32, batch=16)
    ).train


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_any_number_of_workers_gives_the_same_images(augmented):
    alone = stacked(batches_of(augmented))
    for workers in (1, 3):
        assert torch.equal(alone, stacked(batches_of(augmented, workers=workers)))


def test_ranks_share_each_global_batch(augmented):
    alone = batches_of(augmented)
    ranks = [batches_of(augmented, rank=rank, world=2) for rank in range(2)]
    for whole, *shares in zip(alone, *ranks, strict=True):
        assert torch.equal(whole[0], torch.cat([share[0] for share in shares]))
        assert torch.equal(whole[2], torch.cat([share[2] for share in shares]))


def test_order_and_crops_change_with_seed_and_epoch_and_resume_in_the_middle(augmented):
    steps = len(augmented) // 16
    first, again = batches_of(augmented), batches_of(augmented)
    assert torch.equal(stacked(first), stacked(again))
    later = batches_of(augmented, done=steps)
    assert not torch.equal(stacked(first), stacked(later))
    assert not torch.equal(stacked(first), stacked(batches_of(augmented, seed=1)))
    assert torch.equal(stacked(first)[5 * 16 :], stacked(batches_of(augmented, done=5)))
    assert torch.equal(stacked(later)[3 * 16 :], stacked(batches_of(augmented, done=steps + 3)))
    assert sorted(torch.cat([b[2] for b in first]).tolist()) == list(range(len(augmented)))
    image = lambda epoch: augmented[epoch, 7][0]
    assert not torch.equal(image(0), image(1))


def test_an_image_does_not_depend_on_the_randomness_around_it(augmented):
    torch.manual_seed(1)
    one = augmented[4, 9][0]
    torch.manual_seed(2)
    torch.rand(5)
    state = torch.get_rng_state()
    assert torch.equal(one, augmented[4, 9][0])
    assert torch.equal(state, torch.get_rng_state())
    with seeded(1, 2):
        a = torch.rand(3)
    with seeded(1, 2):
        assert torch.equal(a, torch.rand(3))


@pytest.mark.parametrize(("images", "world"), [(10, 1), (10, 2), (11, 4), (64, 3)])
def test_evaluation_counts_each_image_once_without_padding(images, world):
    seen = [
        index for rank in range(world) for batch in EvalBatches(images, 12, rank, world) for _, index in batch
    ]
    assert sorted(seen) == list(range(images))


def test_class_weights_give_each_class_the_same_weight():
    data = open_data(resolve())
    weights, counts = data.class_weights(), [data.train.labels.count(c) for c in (0, 1)]
    assert weights[0] * counts[0] == pytest.approx(weights[1] * counts[1])
    assert (weights[0] * counts[0] + weights[1] * counts[1]) / sum(counts) == pytest.approx(1)


def test_imagenets_transforms_are_the_protocols(tmp_path):
    """Evaluation: resize the short side to 256 with PIL's bilinear interpolation, crop the centre 224."""
    root = make_folder(tmp_path, {"a": 2, "b": 2}, {"a": 1, "b": 1}, size=300)
    data = open_data(resolve(data="imagefolder", data_dir=str(root), batch=4))
    image, label, _ = data.val[0, 1]
    path = root / "val" / "b" / "0.png"
    expected = Image.open(path).convert("RGB")
    expected = expected.resize((int(256 * 307 / 300), 256), Image.Resampling.BILINEAR)
    left, top = round((expected.width - 224) / 2), round((expected.height - 224) / 2)
    expected = expected.crop((left, top, left + 224, top + 224))
    assert label == 1
    assert torch.equal(image, v2.functional.pil_to_tensor(expected))
    assert data.train[0, 0][0].shape == (3, 224, 224)


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "set", {"a": 3, "b": 3}, {"a": 2, "b": 2})


def refused(root) -> str:
    with pytest.raises(DataError) as error:
        open_data(resolve(data="imagefolder", data_dir=str(root), batch=2, resolution=32))
    return str(error.value)


def test_broken_folders_are_named_before_training(root):
    broken = root / "train" / "b" / "0.png"
    original = broken.read_bytes()
    broken.write_bytes(b"not an image")
    assert str(broken) in refused(root)
    broken.write_bytes(original)

    (root / "val" / "a" / "notes.txt").write_text("x")
    assert "notes.txt" in refused(root)
    (root / "val" / "a" / "notes.txt").unlink()

    (root / "train" / "empty").mkdir()
    assert str(root / "train" / "empty") in refused(root)
    (root / "train" / "empty").rmdir()

    shutil.copytree(root / "val" / "a", root / "val" / "c")
    assert str(root / "val" / "c") in refused(root)
    shutil.rmtree(root / "val" / "c")

    shutil.copy(root / "val" / "a" / "0.png", root / "val" / "0.png")
    assert "outside a class" in refused(root)
    (root / "val" / "0.png").unlink()

    (root / "val" / "a" / ".hidden").write_text("x")
    open_data(resolve(data="imagefolder", data_dir=str(root), batch=2))

    shutil.rmtree(root / "val")
    assert str(root / "val") in refused(root)
    assert "no such folder" in refused(root / "none")


def test_a_class_missing_from_val_does_not_shift_the_labels(root):
    shutil.rmtree(root / "val" / "a")
    data = open_data(resolve(data="imagefolder", data_dir=str(root), batch=2))
    assert data.val.labels == [1, 1]


def test_a_truncated_image_is_named_when_read(root):
    path = root / "train" / "a" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"1\.png"):
        read_image(path)


@pytest.mark.parametrize(("data", "args", "word"), [
    ("imagenet", [], "needs --data_dir, the folder that contains train/ and val/"),
    ("cifar10", [], "needs --data_dir, the folder that contains it; with --download it is put there"),
    ("imagenet", ["--data_dir", "/none"], "/none: no such folder"),
    ("cifar10", ["--data_dir", "."], "add --download"),
    ("imagenette", ["--data_dir", "."], "add --download"),
])  # fmt: skip
def test_a_missing_set_says_what_to_do(data, args, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"data_dir": args[1]} if args else {}
    with pytest.raises(DataError) as error:
        open_data(resolve(data=data, **given))
    assert word in str(error.value)


def test_imagenet_has_1000_classes(root):
    with pytest.raises(DataError, match="2 classes, but imagenet has 1000"):
        open_data(resolve(data="imagenet", data_dir=str(root)))


def test_a_batch_larger_than_the_set_is_an_error(root):
    with pytest.raises(DataError, match="more than the 6 training images"):
        open_data(resolve(data="imagefolder", data_dir=str(root), batch=256))


def test_the_batch_that_an_error_proposes_is_a_valid_one(root, tmp_path):
    """With one image there is none."""
    market = make_market(tmp_path / "market")
    for given in (
        {"data": "imagefolder", "data_dir": str(root), "batch": 256},
        {"data": "marketfolder", "data_dir": str(market), "batch": 64},
        {"data": "marketfolder", "data_dir": str(market), "batch": 64, "instances": 16},
    ):
        with pytest.raises(DataError) as error:
            open_data(resolve(**given))
        open_data(resolve(**given | {"batch": int(str(error.value).split("--batch ")[1])}))
    one = make_voc(tmp_path / "voc", train=1, test=1)
    for path in (one / "Annotations").iterdir():
        annotate(path, [("a", 1, 1, 40, 40)], (96, 80))
    with pytest.raises(DataError, match=r"^vocfolder: 1 training image; at least 2 are needed$"):
        open_data(resolve(data="vocfolder", data_dir=str(one)))


def test_a_folder_set_can_be_sent_to_a_spawned_worker(root):
    import pickle

    data = open_data(resolve(data="imagefolder", data_dir=str(root), batch=2, resolution=32, holdout=0.5))
    copy = pickle.loads(pickle.dumps(data.train))
    assert torch.equal(copy[0, 1][0], data.train[0, 1][0])


@pytest.mark.slow
def test_a_broken_image_during_training_is_one_line(root, tmp_path):
    path = root / "train" / "a" / "1.png"
    path.write_bytes(path.read_bytes()[:200])  # its header is intact
    args = flags(data="imagefolder", data_dir=root, resolution=32, batch=2, epochs=1, threads=1)
    for workers in (0, 1):
        _, err = call("hbo.fit", *args, "--workers", workers, "--out", tmp_path / "runs", expect=2)
        last = err.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert str(path) in last
        assert last.endswith(
            f"; python -m hbo.data.check {root} lists every such image, --skip_bad N skips at most N"
        )
        assert "Traceback" not in err
        row, _ = only_row(tmp_path / "runs")
        assert (row["state"], f"error: {row['error']}") == ("failed", last)
