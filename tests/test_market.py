"""Market-1501's layout: names, odd files, images, order, P x K batches."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_market
from PIL import Image
from torchvision.transforms import v2

from hbo.config import resolve
from hbo.data.sampling import IdentityBatches, TrainBatches
from hbo.errors import DataError
from hbo.tasks.build import open_data

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


@pytest.fixture
def root(tmp_path) -> Path:
    return make_market(tmp_path / "market")


def opened(root: Path, **given):
    return open_data(
        resolve(data="marketfolder", data_dir=str(root), **{"resolution": 64, "batch": 4, **given})
    )


def copied(root: Path, folder: str, name: str, source: str = "0001_c1s1_000000_01.jpg") -> None:
    (root / folder / name).write_bytes((root / "bounding_box_train" / source).read_bytes())


def test_published_file_names_are_read(root):
    copied(root, "bounding_box_train", "0123_c6s3_081617_00.jpg")
    copied(root, "bounding_box_train", "10234_c16s3_081617_00.PNG")  # as in folders with more identities
    copied(root, "query", "0008_c6s4_000001_07.jpg")
    data = opened(root)
    assert data.classes == [*(f"{i:04d}" for i in range(1, 7)), "0123", "10234"]
    assert Counter(data.train.labels) == {**dict.fromkeys(range(6), 6), 6: 1, 7: 1}
    names = [Path(path).name for path in data.val.paths]
    queries = 4 * 2 + 1
    assert [shown[2] for shown in data.val.labels] == [1] * queries + [0] * (len(names) - queries)
    for name, (identity, camera, _) in zip(names, data.val.labels, strict=True):
        who, where = name.split("_")[:2]
        assert (identity, camera) == (int(who), int(where[1 : where.index("s")]))
    assert data.val.labels[names.index("0008_c6s4_000001_07.jpg")] == (8, 6, 1)
    assert {who for who, *_ in data.val.labels} == {7, 8, 9, 10, 0, -1}
    assert data.facts["gallery_images"] == 4 * 4 + 2 * 2
    assert (data.facts["junk_images"], data.facts["distractor_images"]) == (2, 2)
    assert (data.facts["train_identities"], data.facts["query_images"], data.facts["faults"]) == (
        8,
        queries,
        [],
    )


def test_files_that_are_not_images_are_skipped_and_counted(root):
    (root / "query" / "Thumbs.db").write_bytes(b"x")
    (root / "bounding_box_test" / "Thumbs.db").write_bytes(b"x")
    (root / "query" / ".DS_Store").write_bytes(b"x")
    (root / "gt_bbox").mkdir()
    facts = opened(root).facts
    assert facts["other_files"] == 2
    assert facts["faults"] == [
        "query/Thumbs.db: not an image by its name",
        "bounding_box_test/Thumbs.db: not an image by its name",
    ]


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize(
    "name", ["0007.jpg", "0007_1_000001_01.jpg", "-2_c1s1_000001_01.jpg", "7c1s1_000001_01.jpg", "_c1_1.jpg"]
)
def test_a_name_that_does_not_parse_is_an_error(root, folder, name):
    copied(root, folder, name)
    n = len([*(root / folder).iterdir()])
    with pytest.raises(
        DataError,
        match=rf"{folder}/{name}: its name does not have the form ID_cCAMERA_.* \(1 of the {n} images do not\)",
    ):
        opened(root)


@pytest.mark.parametrize("folder", FOLDERS[1:])
def test_an_identity_in_both_training_and_test_is_an_error(root, folder):
    copied(root, folder, "0002_c1s1_000009_01.jpg")
    with pytest.raises(DataError, match=r"identity 0002 \(1 such identities\) is in bounding_box_train"):
        opened(root)


def test_junk_and_distractors_are_not_trained_on_and_named(root, capsys):
    before = opened(root)
    copied(root, "bounding_box_train", "-1_c1s1_000001_01.jpg")
    copied(root, "bounding_box_train", "0000_c1s1_000001_01.jpg")
    data = opened(root)
    assert data.facts["left_out_images"] == 2
    names = [
        "-1_c1s1_000001_01.jpg: junk, not trained on",
        "0000_c1s1_000001_01.jpg: distractor, not trained on",
    ]
    assert data.facts["faults"] == names
    err = capsys.readouterr().err
    assert "bounding_box_train: training skips 1 of junk and 1 of distractor (such as -1_c1s1" in err
    assert "0000 means distractor in Market-1501: if it is an identity, give it another number" in err
    assert data.train.labels == before.train.labels
    assert data.classes == before.classes


def test_a_query_without_a_match_is_named(root):
    copied(root, "query", "0099_c1s1_000001_01.jpg")
    copied(root, "query", "0000_c1s1_000007_01.jpg")
    copied(root, "query", "0098_c1s1_000001_01.jpg")
    copied(root, "bounding_box_test", "0098_c1s1_000002_01.jpg")  # only from its own camera
    facts = opened(root).facts
    assert facts["unmatched_queries"] == 3
    assert [fault.split(":")[0] for fault in facts["faults"]] == [f"{who}_c1s1_00000{n}_01.jpg" for who, n in (("0000", 7), ("0098", 1), ("0099", 1))]  # fmt: skip
    for path in (root / "bounding_box_test").glob("*_c2*"):
        path.unlink()
    for path in (root / "query").glob("*_c2*"):
        path.unlink()
    with pytest.raises(DataError, match="no query has a match"):
        opened(root)


def test_folders_that_are_missing_or_empty_are_named(root):
    for path in (root / "query").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="query: contains no images"):
        opened(root)
    (root / "query").rmdir()
    with pytest.raises(DataError, match=r"query: no such folder; .* must contain bounding_box_train/"):
        opened(root)


def test_an_unreadable_image_is_named(root):
    (root / "query" / "0007_c1s1_000005_01.jpg").write_bytes(b"none")
    with pytest.raises(DataError, match=r"0007_c1s1_000005_01.jpg: not a readable image"):
        opened(root)


def test_another_set_is_not_identified_as_market_1501(root):
    with pytest.raises(
        DataError, match=r"36 training images of 6 identities, 8 queries and 20 .* use --data marketfolder"
    ):
        open_data(resolve(data="market1501", data_dir=str(root)))


def test_the_key_depends_on_the_contents_of_the_folder(root, tmp_path):
    key = lambda where: resolve(data="marketfolder", data_dir=str(where)).key()
    assert key(root) == key(make_market(tmp_path / "same"))
    other = make_market(tmp_path / "other")
    copied(other, "query", "0099_c1s1_000001_01.jpg")
    assert key(other) != key(root)


# ------------------------------------------------------------ images


def test_evaluation_sees_the_whole_image_at_two_to_one(root):
    data = opened(root)
    image, shown, index = data.val[0, 3]
    whole = v2.functional.resize(Image.open(data.val.paths[3]).convert("RGB"), [64, 32], antialias=True)
    assert torch.equal(image, v2.functional.pil_to_tensor(whole))
    assert (shown, index) == (data.val.labels[3], 3)
    images, shown, indices = data.val.__getitems__([(0, 3), (0, 1)])
    assert images.shape == (2, 3, 64, 32)
    assert shown.tolist() == [list(data.val.labels[3]), list(data.val.labels[1])]
    assert indices.tolist() == [3, 1]


def test_training_crops_an_image_larger_by_an_eighth(root):
    """Each training image is a crop of the enlarged photograph, sometimes flipped; crops and flips vary."""
    train = opened(root).train
    larger = v2.functional.pil_to_tensor(
        v2.functional.resize(Image.open(train.paths[0]).convert("RGB"), [72, 36], antialias=True)
    )
    windows = {}
    for flipped in (False, True):
        for top in range(9):
            for left in range(5):
                window = larger[:, top : top + 64, left : left + 32]
                windows[(window.flip(-1) if flipped else window).numpy().tobytes()] = flipped, top, left
    seen = [windows[train[epoch, 0][0].numpy().tobytes()] for epoch in range(60)]
    assert len(set(seen)) > 30
    assert 15 < sum(flipped for flipped, *_ in seen) < 45


@pytest.mark.parametrize("flip", ["none", "both"])
def test_flips_follow_the_flag(root, flip):
    rows = opened(root, flip=flip).train
    assert sum("Flip" in type(part).__name__ for part in rows.augment.parts) == {"none": 0, "both": 2}[flip]


def test_an_image_is_a_function_of_seed_epoch_and_index(root):
    one, same, other = (opened(root, seed=seed).train for seed in (3, 3, 4))
    for item in ((0, 0), (5, 7), (0, 0)):
        assert torch.equal(one[item][0], same[item][0])
    assert any(not torch.equal(one[0, i][0], other[0, i][0]) for i in range(5))
    assert any(not torch.equal(one[0, i][0], one[1, i][0]) for i in range(5))


def test_a_cache_changes_no_pixel(root, tmp_path):
    plain, cached = opened(root), opened(root, cache="disk", cache_dir=str(tmp_path / "cache"))
    for part in ("train", "val"):
        a, b = getattr(plain, part), getattr(cached, part)
        assert b.pixels is not None
        for epoch, index in ((0, 0), (3, 5)):
            assert torch.equal(a[epoch, index][0], b[epoch, index][0])


# ------------------------------------------------------------ P x K


LABELS = [identity for identity, n in enumerate((1, 3, 4, 9, 5, 6, 12, 8, 7, 2)) for _ in range(n)]


@pytest.mark.parametrize(("batch", "instances"), [(8, 4), (12, 2), (9, 3)])
def test_a_batch_holds_p_identities_and_k_images_of_each(batch, instances):
    sampler = IdentityBatches(LABELS, batch, seed=0, instances=instances)
    assert len(sampler) == len(LABELS) // batch == len(TrainBatches(len(LABELS), batch, seed=0))
    met = Counter()
    for epoch in range(40):
        sampler.progress = lambda e=epoch: e * len(sampler)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        for items in batches:
            assert {e for e, _ in items} == {epoch}
            images = [index for _, index in items]
            who = Counter(LABELS[i] for i in images)
            assert set(who.values()) == {instances}
            assert len(who) == batch // instances
            for identity in who:
                if LABELS.count(identity) >= instances:  # no image twice
                    assert len({i for i in images if LABELS[i] == identity}) == instances
            met.update(images)
    assert set(met) == set(range(len(LABELS)))  # every image occurs


def test_p_x_k_batches_are_resumed_and_shared():
    whole = list(IdentityBatches(LABELS, 8, seed=1, instances=2))
    cut = IdentityBatches(LABELS, 8, seed=1, instances=2, progress=lambda: 3)
    assert list(cut) == whole[3:]
    shares = [list(IdentityBatches(LABELS, 8, seed=1, instances=2, rank=rank, world=2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole
    for share in shares[0]:
        assert set(Counter(LABELS[i] for _, i in share).values()) == {2}
    assert list(IdentityBatches(LABELS, 8, seed=2, instances=2)) != whole


def test_too_few_identities_for_a_batch_are_an_error(root):
    with pytest.raises(DataError, match="6 identities, too few for batches of 8"):
        opened(root, batch=16, instances=2)


def test_the_plan_counts_a_folder(root):
    from hbo.sweep.plan import images

    assert images(resolve(data="marketfolder", data_dir=str(root))) == (36, 8 + 20, 6)
    assert images(resolve(data="market1501")) == (12936, 23100, 751)
    assert json.dumps(opened(root).facts)  # can be stored in a row
    assert np.array(opened(root).val.labels).shape == (28, 3)
