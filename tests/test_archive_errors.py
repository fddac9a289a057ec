"""An error names what is wrong with an archive, before a run starts."""

import gzip
import io
import os
import re
import shutil
import subprocess
import tarfile

import pytest
from PIL import Image
from test_archives import folder_fixture, index_root, opened, pack, refused  # noqa: F401

from hbo import archives
from hbo.bench.packing import of_folder, write_tar
from hbo.errors import DataError
from hbo.packed import bytes_of


@pytest.fixture
def tars(folder, tmp_path):
    return pack(folder, tmp_path / "tars", "tar", shards=3, cls=True)


def test_a_missing_shard_is_named(folder, tars, tmp_path):
    (tars / "train-000001.tar").rename(tmp_path / "elsewhere")
    assert "train-000001.tar: no such file, of 3 shards" in refused(tars)
    (tmp_path / "elsewhere").rename(tars / "train-000001.tar")
    (tars / "train-000000.tar").rename(tmp_path / "elsewhere")
    for path in sorted(tars.glob("*.tar")):
        path.rename(path.with_name(path.stem + "-of-000003.tar"))
    assert "train-000000-of-000003.tar: no such file, of 3 shards" in refused(tars)


def test_duplicate_shards_and_mixed_formats_are_errors(folder, tars):
    other = shutil.copy(tars / "train-000001.tar", tars / "train-1.tar")
    assert "train-000001.tar and train-1.tar: two sets of shards, or duplicates" in refused(tars)
    os.rename(other, tars / "cats-train-000001.tar")
    assert "of several formats or sets; keep one" in refused(tars)
    os.rename(tars / "cats-train-000001.tar", tars / "val-000000.parquet")
    assert re.search(r"holds train-\S+.tar and val-000000.parquet, of several formats", refused(tars))
    os.remove(tars / "val-000000.parquet")
    shutil.copytree(folder / "train", tars / "train")
    assert "holds train-000000.tar and train/; keep one of them" in refused(tars)
    shutil.rmtree(tars / "train")
    shutil.copytree(folder / "train" / "ape", tars / "ape")
    assert "holds train-000000.tar and ape/; keep one of them" in refused(tars)
    shutil.rmtree(tars / "ape")
    (tars / "list.csv").write_text("path,label\n")
    assert "holds train-000000.tar and list.csv, which --data_dir may name" in refused(tars)
    (tars / "list.csv").unlink()
    for path in tars.glob("val-*"):
        path.unlink()
    assert "holds no shards of val-* or valid-*" in refused(tars)


@pytest.mark.parametrize("keep", [-700, -10240, 512 + 300, 0])
def test_a_truncated_tar_is_named(tars, keep):
    """Cut within an image, after the last one, within the first, and at the start."""
    path = tars / "train-000001.tar"
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        end = max(m.offset_data + m.size for m in tar)
    path.write_bytes(content[: {-700: end - 700, -10240: end + (-end) % 512}.get(keep, keep)])
    assert re.search(r"train-000001.tar: .*truncated", refused(tars))


def test_images_without_class_duplicate_or_misnamed_are_named(folder, tmp_path):
    root = tmp_path / "tars"
    pack(folder, root, "tar", shards=1)
    path, samples = root / "train-000000.tar", of_folder(folder / "train")

    def with_more(more, cls=False):
        write_tar(path, samples, cls)
        with tarfile.open(path, "a") as tar:
            member = tarfile.TarInfo(more)
            tar.addfile(member, io.BytesIO(b""))
        return refused(root)

    assert "alone.jpg: has no class; put it into CLASS/, or add alone.cls" in with_more("alone.jpg")
    assert "alone.jpg: has no class; alone.cls must hold it" in with_more("alone.jpg", cls=True)
    assert "ape/ape1.jpg occurs twice" in with_more("ape/ape1.jpg")
    assert "ape/notes.txt: not an image by its name" in with_more("ape/notes.txt")
    assert "mixed formats: classes by the folder in other/" in with_more("other/ape/ape9.jpg")
    write_tar(path, samples, cls=False)
    write_tar(root / "train-000001.tar", [("ape", "ape9.jpg", b"")], cls=True)
    assert "mixed formats: classes by a .cls, in" in refused(root)
    write_tar(root / "train-000001.tar", [("a/b", "ape9.jpg", b"")], cls=True)
    assert "'a/b' is not a class name" in refused(root)
    assert "val_split=0.2" in refused(root, val_split=0.2)


def test_a_shard_that_changed_after_indexing_is_an_error(tars):
    images = opened(tars).train
    images[0, 0]
    for path in tars.glob("train-*"):
        os.utime(path, (1000, 1000))
    with pytest.raises(DataError, match=r"train-00000\d.tar: has changed since it was indexed; start again"):
        images[0, 0]
    assert opened(tars).train[0, 0][1] == 0


def test_a_broken_index_says_what_to_delete(tars, tmp_path):
    opened(tars)
    for path in (tmp_path / os.environ["XDG_CACHE_HOME"] / "hbo" / "archives").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert "delete it to build it again" in refused(tars)


def test_parquet_with_other_columns_truncated_or_without_classes_is_named(folder, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    root = pack(folder, tmp_path / "set", "parquet", shards=1)
    path = root / "train-00000-of-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    assert "train-00000-of-00001.parquet: not a parquet file, or truncated" in refused(root)
    for columns, said in (
        ({"image": [{"bytes": b"x", "path": "a.jpg"}], "label": [-1]}, "row 0 of row group 0: has no class"),
        ({"image": [{"bytes": b"x", "path": None}], "label": [0]}, "path None: not an image by its name"),
        ({"image": [{"bytes": None, "path": "a.jpg"}], "label": [0]}, "has no image bytes"),
        ({"image": [b"x"], "label": [0]}, "has the columns image, label; it must have image"),
    ):
        parquet.write_table(pa.table(columns), path)
        assert said in refused(root)


def test_parquet_without_pyarrow_names_the_extra(tars, monkeypatch):
    for path in tars.glob("*.tar"):
        path.rename(path.with_suffix(".parquet"))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "reading parquet needs pyarrow: pip install -e '.[parquet]'" in refused(tars)


def test_published_names_of_shards_are_found(tmp_path):
    """Names of sets on Hugging Face: numbered from 0 or 1, with a total, with a hash, or a single file."""
    names = ["imagenet1k-train-0000.tar", "imagenet1k-train-0001.tar", "imagenet1k-validation-00.tar"]
    assert [len(shards.paths) for shards in found_of(tmp_path / "wds", names).values()] == [2, 1]
    names = ["train-00000-of-00002-a1b2c3.parquet", "train-00001-of-00002-d4e5f6.parquet", "test-1.parquet"]
    there = found_of(tmp_path / "hf", names)
    assert [path.name for path in there["train"].paths] == names[:2]
    assert (there["val"].name, len(there["val"].paths)) == ("test", 1)
    assert found_of(tmp_path / "none", ["train-0.txt", "training-0.tar", "train.tar"]) == {}


def found_of(root, names):
    root.mkdir()
    for name in names:
        (root / name).touch()
    return archives.found(root)


def members(path, *more):
    """A training tar with an image in each of two classes and these members, and a val like it."""
    path.mkdir()
    image = io.BytesIO()
    Image.new("RGB", (40, 40)).save(image, "PNG")
    for part in ("train", "val"):
        with tarfile.open(path / f"{part}-0.tar", "w") as tar:
            for name, kind, target in (("./a/0.png", None, ""), ("./b/0.png", None, ""), *more):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind or tarfile.REGTYPE, target
                member.size = 0 if kind else len(image.getvalue())
                tar.addfile(member, None if kind else io.BytesIO(image.getvalue()))
    return path


def test_hidden_folders_of_a_tar_are_ignored(tmp_path):
    root = members(tmp_path / "set", ("./.thumbs/1.png", None, ""), ("./a/.x/2.png", None, ""))
    assert {name: len(inside) for name, inside in archives.members(root, "train").items()} == {"a": 1, "b": 1}


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_a_link_in_a_tar_is_not_skipped_in_silence(tmp_path, kind):
    """A link holds no bytes, but the unpacked folder would have one more image."""
    root = members(tmp_path / "set", ("./a/1.png", kind, "./b/0.png"))
    assert "train-0.tar: ./a/1.png: a link to ./b/0.png; pack the files" in refused(root)


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_a_file_that_is_stored_in_pieces_is_named(tmp_path, form):
    """`tar --sparse` leaves out zeros, so the bytes in the tar are not the file's."""
    with open(tmp_path / "0.ppm", "wb") as file:
        file.write(b"P6 600 600 255\n")
        file.truncate(1_080_015)
    words = ["tar", "--sparse", f"--format={form}", "--transform=s,^,a/,", "-cf", "train-0.tar", "0.ppm"]
    subprocess.run(words, cwd=tmp_path, check=True)
    shutil.copyfile(tmp_path / "train-0.tar", tmp_path / "val-0.tar")
    if (tmp_path / "train-0.tar").stat().st_size > 1_000_000:
        pytest.skip("this file system has no holes")
    assert "train-0.tar: a/0.ppm: stored without its zeros" in refused(tmp_path)


def test_shards_without_an_image_are_named(tmp_path):
    root = members(tmp_path / "set")
    with tarfile.open(root / "val-0.tar", "w"):
        pass
    assert "val-0.tar: holds no images" in refused(root)


@pytest.mark.parametrize("label", [1.0, float("nan"), [1]])
def test_a_label_of_parquet_is_a_number_or_a_name(tmp_path, label):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for part in ("train", "val"):
        columns = {"image": [{"bytes": b"x", "path": "a.jpg"}], "label": [label]}
        parquet.write_table(pa.table(columns), tmp_path / f"{part}-0.parquet")
    assert "must be a whole number, or a class's name" in refused(tmp_path)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("s0.seg.png", b"x"), "s0.png and s0.seg.png: two images of one sample"),
        (("s0.cls", b"1"), "s0.cls: occurs twice"),
        (("s9.cls", b"1"), "s9.cls: has no image; convert"),
        (("s1.jxl", b"x", "s1.cls", b"1"), "s1.cls: has no image, only s1.jxl; convert"),
        (("s1.png", b"x", "s1.cls", "e\u0301".encode()), "class e\u0301: written in two forms of Unicode"),
    ],
)
def test_a_sample_has_one_image_and_one_class(tmp_path, more, said):
    """A mask is not a second image of the class; a sample whose image cannot be read is not left out."""
    for part in ("train", "val"):
        with tarfile.open(tmp_path / f"{part}-0.tar", "w") as tar:
            of = ("s0.png", b"x", "s0.cls", "\u00e9".encode(), *more)
            for name, content in zip(of[::2], of[1::2], strict=True):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert f"train-0.tar: {said}" in refused(tmp_path)


@pytest.mark.parametrize("name", ["train-1.tar.gz", "train_1.tar", "train.tar", "Train-1.tar", "train-b.tar"])
def test_a_shard_with_another_name_is_not_left_out(tmp_path, name):
    root = members(tmp_path / "set")
    (root / "train-0.tar.md5").touch()
    assert len(archives.found(root)) == 2
    (root / name).touch()
    assert f"{name} is not read beside" in refused(root)
    for path in root.glob("*-0.tar"):
        path.unlink()
    assert f"{name} is not read: call shards train-000000.tar" in refused(root)


def test_shards_in_a_folder_below_are_found_for_the_reader(tmp_path):
    """Hugging Face's repositories have them in data/."""
    members(tmp_path / "data")
    assert f"use --data_dir {tmp_path / 'data'}, which contains" in refused(tmp_path)
    (tmp_path / "data").rename(tmp_path / "train")
    assert "it contains train-0.tar: put shards into" in refused(tmp_path)


def test_compressed_and_joined_tars_are_named(tmp_path):
    """`cat` appends the second tar after the first one's end."""
    root = members(tmp_path / "set")
    path, whole = root / "train-0.tar", (root / "train-0.tar").read_bytes()
    path.write_bytes(gzip.compress(whole))
    assert "train-0.tar: is compressed; unpack it" in refused(root)
    path.write_bytes(whole + (members(tmp_path / "other") / "val-0.tar").read_bytes())
    assert "train-0.tar: has data after its end" in refused(root)


def test_an_index_is_never_that_of_another_set(tmp_path):
    """Two sets whose shards have the same names, sizes and times."""
    one, two = members(tmp_path / "one"), members(tmp_path / "two", ("./b/1.png", None, ""))
    for path in (*one.iterdir(), *two.iterdir()):
        os.utime(path, (1000, 1000))
    assert [(one / name).stat().st_size for name in os.listdir(one)] == [10240, 10240]
    assert [(two / name).stat().st_size for name in os.listdir(two)] == [10240, 10240]
    counts = [sum(map(len, archives.members(root, "train").values())) for root in (one, two)]
    assert counts == [2, 3]


def test_an_index_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "set XDG_CACHE_HOME to a folder that you may write into" in refused(members(tmp_path / "set"))


def test_damaged_and_replaced_parquet(folder, tmp_path):
    """Damage is named; a file that was replaced is opened anew."""
    pytest.importorskip("pyarrow")
    root, other = (pack(folder, tmp_path / name, "parquet", shards=1) for name in ("set", "other"))
    path = root / "train-00000-of-00001.parquet"
    before = [bytes_of(file) for file in archives.members(root, "train")["ape"]]
    shutil.copyfile(other / "val-00000-of-00001.parquet", path)
    after = [bytes_of(file) for file in archives.members(root, "train")["ape"]]
    assert after == [bytes_of(file) for file in archives.members(other, "val")["ape"]] != before
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * 200 + whole[204:])
    assert "train-00000-of-00001.parquet: row group 0 is damaged" in refused(root)
