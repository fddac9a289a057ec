"""Tar: WebDataset's KEY.jpg and KEY.cls, or CLASS/NAME.jpg; and torchvision's two archives of ImageNet.

ILSVRC2012_img_train.tar contains one tar per class, ILSVRC2012_img_val.tar only photographs, whose classes
are in ILSVRC2012_devkit_t12.tar.gz. Nothing is unpacked: an image's bytes are read in place.
"""

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hbo import files
from hbo.archives.index import Entry
from hbo.errors import DataError

IMAGENET = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
BLOCK = 512  # bytes of a header
MAGIC = 257  # where a header says "ustar"
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd


def read(shard: Path, at: int, row: int, size: int) -> bytes:
    """Bytes by offset. `os.pread` moves no shared position, and no file stays open: workers and threads do
    not interfere, and a set may have more shards than a process may open files.
    """
    file = os.open(shard, os.O_RDONLY)
    try:
        found = os.pread(file, size, at)
        while len(found) < size and (more := os.pread(file, size - len(found), at + len(found))):
            found += more
        return found
    finally:
        os.close(file)


def entries(shard: Path) -> Iterator[Entry]:
    """The images of a shard.

    Raises:
        DataError: not a tar, truncated, an image without a class, or a file that is not an image.
    """
    if shard.name == IMAGENET["train"]:
        return _by_tar(shard)
    return _reported(shard) if shard.name == IMAGENET["val"] else _webdataset(shard)


def _webdataset(shard: Path) -> Iterator[Entry]:
    """KEY.jpg and KEY.cls if there is a .cls, else CLASS/NAME.jpg."""
    images: list[tuple[str, int, int]] = []
    labels: dict[str, str] = {}
    odd: list[str] = []
    with _opened(shard) as tar:
        for member in _files(tar, shard):
            name = os.path.normpath(member.name)
            if name.lower().endswith(".cls"):
                if _key(name) in labels:
                    raise DataError(f"{shard}: {name}: occurs twice; keep one")
                labels[_key(name)] = _text(tar, member, shard)
            elif files.is_image(name):
                images.append((name, member.offset_data, member.size))
            else:
                odd.append(name)
    if not labels and odd:  # WebDataset's samples may have further files
        raise DataError(
            f"{shard}: {odd[0]}: not an image by its name, in a tar of CLASS/NAME.jpg; convert images to"
            f" {', '.join(sorted(files.IMAGES))}, and leave out other files"
        )
    if labels:
        _check_samples(shard, [name for name, *_ in images], labels, odd)
    for name, at, size in images:
        folder, base = os.path.split(name)
        if labels:
            if (label := labels.get(_key(name))) is None:
                raise DataError(f"{shard}: {name}: has no class; {_key(name)}.cls must hold it")
            yield Entry(label, base, at, 0, size, "a .cls")
        else:
            above, label = os.path.split(folder)
            if not label:
                raise DataError(f"{shard}: {name}: has no class; put it into CLASS/, or add {_key(name)}.cls")
            yield Entry(label, base, at, 0, size, f"the folder in {above or '.'}/")


def _check_samples(shard: Path, images: list[str], labels: dict[str, str], odd: list[str]) -> None:
    """Check that each KEY.cls has one image.

    Raises:
        DataError: several images, of which one may be a mask; or none, as its format is not supported.
    """
    of_key: dict[str, str] = {}
    for name in images:
        if (other := of_key.setdefault(_key(name), name)) != name:
            raise DataError(f"{shard}: {other} and {name}: two images of one sample; keep one")
    if lacking := [key for key in labels if key not in of_key]:
        there = next((name for name in odd if _key(name) == lacking[0]), "")
        raise DataError(
            f"{shard}: {lacking[0]}.cls: has no image{f', only {there}' * bool(there)}; convert images to"
            f" {', '.join(sorted(files.IMAGES))}"
        )


def _by_tar(shard: Path) -> Iterator[Entry]:
    """The images of a tar of tars, one CLASS.tar per class."""
    with _opened(shard) as outer:
        for member in _files(outer, shard):
            label, suffix = os.path.splitext(os.path.basename(member.name))
            if suffix != ".tar":
                raise DataError(f"{shard}: {member.name}: must be a tar of a class's images")
            with _opened(shard, outer.extractfile(member), f"{member.name}: ") as inner:
                for image in _files(inner, f"{shard}: {member.name}"):
                    name = os.path.basename(image.name)
                    yield Entry(
                        label, name, member.offset_data + image.offset_data, 0, image.size, "a tar per class"
                    )


def _reported(shard: Path) -> Iterator[Entry]:
    """ILSVRC's validation photographs; sorted by name, they match the devkit's list."""
    with _opened(shard) as tar:
        found = sorted((os.path.basename(m.name), m.offset_data, m.size) for m in _files(tar, shard))
    labels = _devkit(shard.with_name(DEVKIT))
    if len(labels) != len(found):
        raise DataError(
            f"{shard}: holds {len(found)} images, but {DEVKIT} has {len(labels)} classes of images"
        )
    for (name, at, size), label in sorted(zip(found, labels, strict=True), key=lambda one: one[0][1]):
        yield Entry(label, name, at, 0, size, "the devkit")


def _devkit(path: Path) -> list[str]:
    """The class of each validation photograph, as a WordNet id."""
    from scipy.io import loadmat

    if not path.is_file():
        raise DataError(
            f"{path}: no such file; it has the classes of {IMAGENET['val']}; put it beside that file"
        )
    try:
        with tarfile.open(path, "r:gz") as tar:
            held = {
                os.path.basename(m.name): _bytes(tar, m, path)
                for m in _files(tar, path)
                if os.path.basename(m.name) in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
            }
        synsets = loadmat(io.BytesIO(held["meta.mat"]), squeeze_me=True)["synsets"]
        ids = {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets}
        return [ids[int(line)] for line in held["ILSVRC2012_validation_ground_truth.txt"].split()]
    except (tarfile.TarError, EOFError, KeyError, ValueError, OSError) as error:
        raise DataError(
            f"{path}: not ImageNet's development kit, or truncated ({error}); download it again"
        ) from None


@contextmanager
def _opened(shard: Path, content: IO[bytes] | None = None, what: str = "") -> Iterator[tarfile.TarFile]:
    """A tar to be read to its end; without an end it is truncated."""
    short = f"{shard}: {what}truncated, or not a tar; copy it again"
    try:
        with open(shard, "rb") as file:
            place = content or file
            if place.read(6).startswith(COMPRESSED):
                raise DataError(f"{shard}: {what}is compressed; unpack it to a plain .tar")
            place.seek(0)
            with tarfile.open(fileobj=place, mode="r:") as tar:
                yield tar
                place.seek(tar.offset)
            if place.read(BLOCK) != bytes(BLOCK):  # Python treats a broken header as the end
                raise DataError(short)
            while block := place.read(BLOCK):
                if block[MAGIC : MAGIC + 5] == b"ustar":
                    raise DataError(
                        f"{shard}: {what}has data after its end; join tars with tar --concatenate"
                    )
    except tarfile.TarError as error:
        raise DataError(f"{short} ({error})") from None


def _files(tar: tarfile.TarFile, where: str | Path) -> Iterator[tarfile.TarInfo]:
    """Its files, without desktops' metadata and hidden folders.

    Args:
        tar: open.
        where: its name in messages.

    Raises:
        DataError: a link: it has no bytes, so an image would be missing; or a sparse file.
    """
    for member in tar:
        inner = os.path.normpath(member.name).split("/")
        if any(files.is_litter(name) for name in inner if name != ".."):
            continue
        if member.islnk() or member.issym():
            raise DataError(
                f"{where}: {member.name}: a link to {member.linkname}; pack the files themselves, with"
                " tar --dereference --hard-dereference"
            )
        if member.issparse():
            raise DataError(f"{where}: {member.name}: stored without its zeros; pack it without tar --sparse")
        if member.isreg():
            yield member


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo, shard: Path) -> bytes:
    file = tar.extractfile(member)
    found = file.read() if file else b""
    if len(found) != member.size:
        raise DataError(f"{shard}: {member.name}: truncated; copy it again")
    return found


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo, shard: Path) -> str:
    try:
        return _bytes(tar, member, shard).decode().strip()
    except UnicodeDecodeError:
        raise DataError(f"{shard}: {member.name}: must hold a class, its index or name, as text") from None


def _key(name: str) -> str:
    """WebDataset's key: the path up to the first dot of its last part."""
    folder, base = os.path.split(name)
    return os.path.join(folder, base.split(".")[0])
