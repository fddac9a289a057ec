"""How data sets lie in their folders, and what a folder holds: pure functions of a path, without torch.

A set's fingerprint is ten digits of the names and bytes of the files that a run reads, not of where they lie. A set as it was
published has none, by its counts: its name says what it is. What is not read (hidden files, Thumbs.db, images outside VOC's lists)
changes nothing.
"""

import hashlib
import importlib.util
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hbo import files
from hbo.errors import DataError
from hbo.recipes import SIZES

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
MARKET = ("bounding_box_train", "query", "bounding_box_test")  # to train on, queries, gallery
VOC = (5011, 11540, 4952)  # images of trainval 2007 and 2012, and of test 2007
MARKET1501 = (12936, 3368, 19732)  # images to train on, queries, gallery
ELPV = (2624, "0abe6fe770")  # photographs, and the first digits of their labels' hash, in the package of 1.0
# Folders whose runs stand in ablations/ under keys from before bytes were read: CIFAR-10 as JPEG files, BCCD, COIL-20.
BEFORE = {"8628d43b17": "0184971aab", "a0833d221f": "b52f060a84", "b2a49ce921": "8274bdc54a"}


def data_dir(data: str, path: str | None) -> Path:
    """The folder that `--data_dir` names.

    Raises:
        DataError: none is named, or there is none.
    """
    if path is None:
        holds = {"imagefolder": "train/ and val/"}.get(data, "it")
        raise DataError(f"data={data} needs --data_dir, the folder that holds {holds}")
    found = Path(path).expanduser()
    if not found.is_dir():
        raise DataError(f"data_dir={path}: no such folder")
    return found


def is_image(name: str) -> bool:
    """Whether a file is an image by its name, and not a desktop's shadow of one."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not files.is_litter(name)


# ------------------------------------------------------------ a folder a class


def scan(root: Path, split_name: str) -> dict[str, list[Path]]:
    """Class -> its images, both sorted by name.

    Raises:
        DataError: no such folder, images outside a class folder, an empty class, or a file that is no image by its name.
    """
    folder = root / split_name
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {root} must hold train/ and val/, each with a folder a class")
    entries = sorted(e for e in folder.iterdir() if not files.is_litter(e.name))
    if loose := [e for e in entries if e.is_file() and e.suffix.lower() in SUFFIXES]:
        raise DataError(f"{loose[0]}: lies outside a class; sort the images of {folder} into a folder a class")
    classes = {}
    for entry in (e for e in entries if e.is_dir()):
        inside = sorted(Path(e.path) for e in os.scandir(entry) if e.is_file() and not files.is_litter(e.name))
        if not inside:
            raise DataError(f"{entry}: an empty class; remove the folder or fill it")
        if odd := [f for f in inside if f.suffix.lower() not in SUFFIXES]:
            raise DataError(f"{odd[0]}: no image by its name; remove it")
        classes[entry.name] = inside
    if not classes:
        raise DataError(f"{folder}: holds no class folders")
    return classes


def _count(folder: Path) -> int:
    """Images in a folder of class folders, without their names being kept: ImageNet has 1.3 million."""
    if not folder.is_dir():
        return 0
    classes = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
    return sum(is_image(entry.name) for one in classes for entry in os.scandir(one))


# ------------------------------------------------------------ PASCAL VOC


def voc_roots(data: str, root: Path) -> list[tuple[Path, str]]:
    """The folders and lists that a set reads: those to train on, and last the one that is reported."""
    if data != "voc":
        return [(root, "trainval"), (root, "test")]
    root = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root
    return [(root / "VOC2007", "trainval"), (root / "VOC2012", "trainval"), (root / "VOC2007", "test")]


def voc_names(root: Path, split_name: str) -> list[str]:
    """The names of a list, in its order.

    Raises:
        DataError: the folder or the list is missing, cannot be read, is empty, or names an image twice.
    """
    listing = root / "ImageSets" / "Main" / f"{split_name}.txt"
    for path, what in ((root, "a folder with Annotations/, JPEGImages/ and ImageSets/Main/"), (listing, "a list of images")):
        if not path.exists():
            raise DataError(f"{path}: not there; VOC's layout has {what} there")
    try:
        text = listing.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{listing}: a list must be text in UTF-8 ({error})") from None
    names = [line.split()[0] for line in text.splitlines() if line.strip()]
    if not names:
        raise DataError(f"{listing}: an empty list")
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise DataError(f"{listing}: names {twice[0]} more than once")
    return names


def voc_images(root: Path) -> dict[str, list[str]]:
    """Stem -> paths of the images of JPEGImages/, sorted by name.

    Raises:
        DataError: no such folder.
    """
    folder = root / "JPEGImages"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found: dict[str, list[str]] = {}
    for path in sorted(e.path for e in os.scandir(folder) if is_image(e.name)):
        found.setdefault(Path(path).stem, []).append(path)
    return found


# ------------------------------------------------------------ Market-1501


def market_root(data: str, root: Path) -> Path:
    """The folder that holds the three; of Market-1501 it may be the one that its archive makes."""
    inner = root / "Market-1501-v15.09.15"
    return inner if data == "market1501" and inner.is_dir() else root


def market_names(root: Path, part: str) -> tuple[list[str], list[str]]:
    """Names of the images of one of the three folders, and of the files that are none; hidden ones are passed over.

    Raises:
        DataError: no such folder, or no image in it.
    """
    folder = root / part
    if not folder.is_dir():
        train, query, gallery = MARKET
        raise DataError(f"{folder}: no such folder; {root} must hold {train}/, {query}/ and {gallery}/")
    names = sorted(e.name for e in os.scandir(folder) if not e.is_dir() and not e.name.startswith("."))
    images = [name for name in names if is_image(name)]
    if not images:
        raise DataError(f"{folder}: holds no images")
    return images, [name for name in names if not is_image(name)]


# ------------------------------------------------------------ fingerprints


def fingerprint(data: str, path: str | None) -> str | None:
    """What a set's folder holds, in ten digits; None where it is as published, or not there and known by its name.

    Args:
        data: name of the set.
        path: its `data_dir`.

    Raises:
        DataError: the folder of a set that has no other name is not there, or it is not laid out as it must be.
    """
    return _look(data, path)[0]


def known_by(data: str, path: str | None) -> str:
    """By what the fingerprint knows the images: for the row."""
    return _look(data, path)[1]


def _look(data: str, path: str | None) -> tuple[str | None, str]:
    if data not in _SETS:
        return None, "name"
    if data == "elpv":
        return files.looked_up("elpv", _elpv)
    folder = None if path is None else Path(path).expanduser()
    if data.endswith("folder"):
        folder = data_dir(data, path)
    if folder is None or not folder.is_dir():
        return None, "name"
    return files.looked_up((data, os.path.abspath(folder)), lambda: _SETS[data](data, folder))


def _digits(digest: "hashlib._Hash", whole: bool) -> tuple[str, str]:
    found = digest.hexdigest()[:10]
    return BEFORE.get(found, found), "names and bytes" if whole else "names and sizes"


def _classes(data: str, root: Path) -> tuple[str | None, str]:
    """Of a folder a class; ImageNet and Imagenette as published have none."""
    if data == "imagenette":
        root = root / "imagenette2-320"
        if not root.is_dir():  # it may be downloaded yet
            return None, "name"
    if data in SIZES and tuple(_count(root / part) for part in ("train", "val")) == SIZES[data]:
        return None, "counts, as published"
    classes = [(part, name, inside) for part in ("train", "val") for name, inside in scan(root, part).items()]
    held, whole = files.contents(os.fspath(file) for *_, inside in classes for file in inside)
    held, digest = iter(held), hashlib.sha256()
    for part, name, inside in classes:
        digest.update(repr([(part, name, file.name, next(held)) for file in inside]).encode())
    return _digits(digest, whole)


def _voc(data: str, root: Path) -> tuple[str | None, str]:
    """Of VOC's layout: the lists, and the annotations and images that they name."""
    lists = [(where, split_name, voc_names(where, split_name)) for where, split_name in voc_roots(data, root)]
    if data == "voc" and tuple(len(names) for *_, names in lists) == VOC:
        return None, "counts, as published"
    digest, paths = hashlib.sha256(), []
    for where, split_name, _ in lists:
        digest.update((where / "ImageSets" / "Main" / f"{split_name}.txt").read_bytes())
    for where in dict.fromkeys(where for where, *_ in lists):
        wanted = {name for other, _, names in lists if other == where for name in names}
        for file in sorted(where / "Annotations" / f"{name}.xml" for name in wanted):
            digest.update(file.name.encode() + (file.read_bytes() if file.is_file() else b""))
        paths += sorted(path for stem, same in voc_images(where).items() if stem in wanted for path in same)
    held, whole = files.contents(paths)
    for path, what in zip(paths, held, strict=True):
        digest.update(f"{os.path.basename(path)} {what}".encode())
    return _digits(digest, whole)


def _market(data: str, root: Path) -> tuple[str | None, str]:
    """Of Market's three folders; Market-1501 as published has none."""
    root = market_root(data, root)
    images = {part: market_names(root, part)[0] for part in MARKET}
    if data == "market1501" and tuple(map(len, images.values())) == MARKET1501:
        return None, "counts, as published"
    named = [(part, name) for part, names in images.items() for name in names]
    held, whole = files.contents(os.path.join(root, part, name) for part, name in named)
    digest = hashlib.sha256()
    for (part, name), what in zip(named, held, strict=True):
        digest.update(f"{part} {name} {what}\n".encode())
    return _digits(digest, whole)


def _cifar(data: str, root: Path) -> tuple[str | None, str]:
    """Of torchvision's files: as published by the checksums that torchvision itself asks for."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[data]
    parts = [(root / kind.base_folder / name, md5) for name, md5 in [*kind.train_list, *kind.test_list]]
    if not all(path.is_file() for path, _ in parts):  # it may be downloaded yet
        return None, "name"
    if all(hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5 for path, md5 in parts):
        return None, "checksums, as published"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path, _ in parts))
    return _digits(digest, True)


def _elpv() -> tuple[str | None, str]:
    """Of the package that elpv comes with: its labels, and how many photographs."""
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or found.origin is None:
        return None, "name"
    root = Path(found.origin).parent / "data"
    labels = hashlib.sha256((root / "labels.csv").read_bytes()).hexdigest()[:10]
    if (sum(is_image(entry.name) for entry in os.scandir(root / "images")), labels) == ELPV:
        return None, "counts, as published"
    return labels, "labels"


_SETS: dict[str, Callable[[str, Path], tuple[str | None, str]]] = {
    "elpv": lambda _data, _root: _elpv(),
    "imagefolder": _classes,
    "imagenet": _classes,
    "imagenette": _classes,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "voc": _voc,
    "vocfolder": _voc,
    "market1501": _market,
    "marketfolder": _market,
}
