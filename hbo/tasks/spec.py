"""Declarations of a task and of a data set, read by flags, key, plan and tables; imports nothing heavy."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbo import files, headers
from hbo.errors import DataError, UserError

NAMED = "name"  # a data set identified by its name, without looking at a folder
PUBLISHED = "counts, as published"
Look = tuple[str | None, str]  # ten digits, or None if the name is enough; and how the images were identified
Counts = tuple[int, ...]
# Folders whose runs are in ablations/ with keys from before bytes were hashed: CIFAR-10 as JPEG files, BCCD,
# COIL-20.
BEFORE = {"8628d43b17": "0184971aab", "a0833d221f": "b52f060a84", "b2a49ce921": "8274bdc54a"}


def digits(digest: Any, whole: bool, paths: Sequence[str | Path]) -> Look:
    """A folder's fingerprint.

    Earlier versions ignored EXIF rotation. The fingerprint of a folder with rotated photographs therefore
    differs from the earlier one, so that no old row is reused for it; folders without such photographs keep
    their fingerprint. Folders with more than `files.MANY` images and published sets are not inspected and
    keep theirs too. ImageNet has a few rotated photographs: a row.json of ImageNet without `turned_images`
    is from an earlier version, which read them unrotated.

    Args:
        digest: the hash of its contents.
        whole: whether every byte was hashed; else names and sizes.
        paths: its images.
    """
    if headers.any_turned(paths):
        digest.update(b"turned as EXIF says")
    found = digest.hexdigest()[:10]
    return BEFORE.get(found, found), "names and bytes" if whole else "names and sizes"


@dataclass(frozen=True)
class DataSet:
    """A data set: its changes to the paper's ImageNet protocol, its size, and its source."""

    recipe: dict[str, Any]
    images: tuple[int, int] | None = None
    """Published numbers of training and validation images; None if the folder decides."""
    classes: int | None = None
    look: Callable[[Path | None], Look] | None = None
    """Fingerprint of its folder or package; None if its contents never change."""
    count: Callable[[Path], tuple[int, int, int]] | None = None
    """Numbers of training images, validation images and classes of its folder."""
    load: Callable[[Any], Any] | None = None
    """A run -> training images, validation images, class names: for data sets in memory."""
    fetch: Callable[[Any], None] | None = None
    """Check data_dir, and download if the run allows it."""
    inner: str = ""
    """Folder within data_dir that its archive creates."""
    holds: str = "it"
    """Contents of data_dir, for messages."""
    marks: tuple[str, ...] = ()
    """Folders within data_dir that identify this layout."""
    folders: Callable[[Path], Sequence[str]] | None = None
    """A folder -> its folders of images, if they can have several names."""
    photographs: bool = False
    """Whether images have many sizes, so that random-resized crops are used."""
    lists: str = ""
    """Suffix of a file that `--data_dir` may name instead of a folder."""
    licence: str = ""
    """Licence of its images, for exports; empty if unknown."""
    title: str = ""
    """Its title; empty: its key, or the name of its folder."""

    @property
    def takes_folder(self) -> bool:
        """Whether it uses `--data_dir`."""
        return self.load is None or bool(self.inner)

    @property
    def by_folder(self) -> bool:
        """Whether the folder alone defines the images: the data set has no published contents."""
        return self.count is not None

    def root(self, name: str, path: str | None) -> Path:
        """The folder or list that `--data_dir` names.

        Raises:
            DataError: none is given, or it does not exist.
        """
        if path is None:
            fetched = "; with --download it is put there" if self.inner else ""
            raise DataError(f"data={name} needs --data_dir, the folder that contains {self.holds}{fetched}")
        found = files.expanded(path)
        if self.lists and found.is_file():
            if found.suffix.lower() != self.lists:
                raise DataError(
                    f"data_dir={path}: must be a folder, or a {self.lists} file that lists images"
                )
            return found
        if not found.is_dir():
            raise DataError(f"data_dir={path}: no such folder{files.beside(found)}")
        return found

    def looked(self, name: str, path: str | None) -> Look:
        """Fingerprint of its folder.

        Raises:
            DataError: the folder of a data set without published contents is
            missing, or has the wrong layout.
        """
        if self.look is None:
            return None, NAMED
        folder = None if path is None else files.expanded(path)
        if self.by_folder:
            folder = self.root(name, path)
        elif self.load is None and (folder is None or not folder.is_dir()):
            return None, NAMED
        where = None if folder is None else folder / self.inner
        if self.inner and where is not None and not where.is_dir():  # it may still be downloaded
            return None, NAMED
        look = self.look
        try:
            return files.looked_up((name, where and os.path.abspath(where)), lambda: look(where))
        except DataError:
            if self.by_folder:
                raise
            # Not the data set's folder: opening it raises the error.
            return (
                None,
                NAMED,
            )


@dataclass(frozen=True)
class Task:
    """A task: its fields, the shared fields it ignores, its data sets and metrics, its checks and report."""

    fields: type
    """A frozen dataclass of its own fields; `Run` inherits from it."""
    idle: frozenset[str]
    """Shared fields that it does not use."""
    sets: dict[str, DataSet]
    headline: str
    """The main metric."""
    columns: dict[str, str]
    """Metrics of a row -> their titles, in the order of a table."""
    report: Callable[[Mapping[str, Any]], list[tuple[str, str]]]
    """A finished row -> the lines printed at the end of a run, name and value."""
    paper_classes: int = 1000
    """Resolution at which the paper counts multiply-adds."""
    evaluated: float = 1.0
    """Share of an image's side that evaluation uses."""
    picture: str = ""
    """The command of `hbo.analysis` that shows a finished run's outcomes on its images."""
    more: tuple[str, ...] = ()
    """Further metrics that `hbo.analysis.results` shows."""
    new_classes: bool = False
    """Whether it is evaluated on classes that are not trained on."""
    settle: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = lambda values, given: {}
    """Values so far and given fields -> the values that the task itself sets."""
    meant: Callable[[Path], str | None] = lambda root: None
    """The folder given with --task and without --data -> its data set; None: the task's first."""
    recipe: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = lambda recipe, given: recipe
    """The data set's recipe and the given fields -> the recipe."""
    advice: Callable[[Any], str] = lambda run: ""
    """A run -> one line about the recipe chosen for it, printed at its start;
    empty for the data set's own."""
    check: Callable[[Any], None] = lambda run: None
    """Check the task's fields."""
    adds: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda values: {}
    """Further values that can change a result, for the identity."""
    own: tuple[str, ...] = field(init=False)
    """Names of `fields`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "own", tuple(self.fields.__dataclass_fields__))


def require(run: Any, name: str, holds: bool, reason: str) -> None:
    """Check a field's value.

    Raises:
        UserError: if `holds` is false; names field, value and reason.
    """
    if not holds:
        raise UserError(f"{name}={getattr(run, name)}: {reason}")


def percent(row: Mapping[str, Any], name: str) -> str:
    """`71.23 %`."""
    return f"{100 * row[name]:.2f} %"
