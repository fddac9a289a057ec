"""What a task and a data set declare of themselves: light, read by the flags, the key, the plan and the tables."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbo import files, headers
from hbo.errors import DataError, UserError

NAMED = "name"  # how a set is known that no folder was looked at for
PUBLISHED = "counts, as published"
Look = tuple[str | None, str]  # ten digits, None where the name says it all; and by what the images are known
Counts = tuple[int, ...]
# Folders whose runs stand in ablations/ under keys from before bytes were read: CIFAR-10 as JPEG files, BCCD, COIL-20.
BEFORE = {"8628d43b17": "0184971aab", "a0833d221f": "b52f060a84", "b2a49ce921": "8274bdc54a"}


def digits(digest: Any, whole: bool, paths: Sequence[str | Path]) -> Look:
    """A folder's fingerprint.

    Photographs that their EXIF turns were once taken as they lie in the file: where a folder has one, its fingerprint says so, and
    no row of before is taken for a new one. A folder without such photographs keeps the fingerprint that it always had.
    Nothing is looked at, and no fingerprint changes, in a folder of more than `files.MANY` images and in a published set.
    ImageNet has a few turned photographs: a row.json of ImageNet without `turned_images` comes from before, and saw them as they lie.

    Args:
        digest: the hash of what it holds.
        whole: whether of every byte; else of names and sizes.
        paths: its images.
    """
    if headers.any_turned(paths):
        digest.update(b"turned as EXIF says")
    found = digest.hexdigest()[:10]
    return BEFORE.get(found, found), "names and bytes" if whole else "names and sizes"


@dataclass(frozen=True)
class DataSet:
    """A data set: what it changes of the paper's ImageNet protocol, how large it is, and where it comes from."""

    recipe: dict[str, Any]
    images: tuple[int, int] | None = None
    """To train on and to report, as published; None where the folder says it."""
    classes: int | None = None
    look: Callable[[Path | None], Look] | None = None
    """What its folder, or its package, holds; None where that never changes."""
    count: Callable[[Path], tuple[int, int, int]] | None = None
    """Images to train on, to report, and classes, of its folder."""
    load: Callable[[Any], Any] | None = None
    """A run -> images to train on, images to report, names of classes: of a set that is held in memory."""
    fetch: Callable[[Any], None] | None = None
    """Have what is in data_dir checked, and downloaded if the run allows it."""
    inner: str = ""
    """Folder within data_dir that its archive makes."""
    holds: str = "it"
    """What data_dir holds, for people."""
    marks: tuple[str, ...] = ()
    """Folders within data_dir by which a folder of this kind is known."""
    photographs: bool = False
    """Whether images are of many sizes, so that random-resized crops are cut from them."""
    title: str = ""
    """How people call it; left out: its key, or the name of its folder."""

    @property
    def takes_folder(self) -> bool:
        """Whether `--data_dir` means something to it."""
        return self.load is None or bool(self.inner)

    @property
    def by_folder(self) -> bool:
        """Whether the folder alone says which images it means: the set has no published content."""
        return self.count is not None

    def root(self, name: str, path: str | None) -> Path:
        """The folder that `--data_dir` names.

        Raises:
            DataError: none is named, or there is none.
        """
        if path is None:
            raise DataError(f"data={name} needs --data_dir, the folder that holds {self.holds}")
        found = files.expanded(path)
        if not found.is_dir():
            raise DataError(f"data_dir={path}: no such folder")
        return found

    def looked(self, name: str, path: str | None) -> Look:
        """What its folder holds.

        Raises:
            DataError: the folder of a set that has no other name is not there, or it is not laid out as it must be.
        """
        if self.look is None:
            return None, NAMED
        folder = None if path is None else files.expanded(path)
        if self.by_folder:
            folder = self.root(name, path)
        elif self.load is None and (folder is None or not folder.is_dir()):
            return None, NAMED
        where = None if folder is None else folder / self.inner
        if self.inner and where is not None and not where.is_dir():  # it may be downloaded yet
            return None, NAMED
        look = self.look
        try:
            return files.looked_up((name, where and os.path.abspath(where)), lambda: look(where))
        except DataError:
            if self.by_folder:
                raise
            return None, NAMED  # another folder than the set's: no run starts on it, in the words of who opens it


@dataclass(frozen=True)
class Task:
    """A task: its fields, what it leaves idle, its sets and metrics, and what it checks and reports."""

    fields: type
    """A frozen dataclass of the fields that it alone obeys; `Run` inherits from it."""
    idle: frozenset[str]
    """Shared fields that it does not use."""
    sets: dict[str, DataSet]
    headline: str
    """The metric that tells most."""
    columns: dict[str, str]
    """Metrics of a row -> how they are called, in the order of a table."""
    report: Callable[[Mapping[str, Any]], list[tuple[str, str]]]
    """A finished row -> what a run ends with, name and value."""
    paper_classes: int = 1000
    """At which the paper counts multiply-adds."""
    evaluated: float = 1.0
    """Share of an image's side that evaluation looks at."""
    more: tuple[str, ...] = ()
    """Metrics that `hbo.analysis.results` shows besides."""
    new_classes: bool = False
    """Whether it is evaluated on classes that it was not trained on."""
    settle: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = lambda values, given: {}
    """Values so far and those given -> what the task itself decides of the rest."""
    recipe: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = lambda recipe, given: recipe
    """A set's recipe and the values given -> the recipe for them."""
    check: Callable[[Any], None] = lambda run: None
    """Refuse what the task cannot obey."""
    adds: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda values: {}
    """What can change a result and is no field's value: for the identity."""
    own: tuple[str, ...] = field(init=False)
    """Names of `fields`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "own", tuple(self.fields.__dataclass_fields__))


def require(run: Any, name: str, holds: bool, reason: str) -> None:
    """Refuse a field's value.

    Raises:
        UserError: where it does not hold; names field, value and reason.
    """
    if not holds:
        raise UserError(f"{name}={getattr(run, name)}: {reason}")


def percent(row: Mapping[str, Any], name: str) -> str:
    """`71.23 %`."""
    return f"{100 * row[name]:.2f} %"
