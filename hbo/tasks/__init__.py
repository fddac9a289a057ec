"""The tasks: one folder each, declared in its spec.py and merged here; imports nothing heavy.

A new task is a folder, a line in `TASKS`, and its fields among the bases of `hbo.config.Run`.
"""

import os
from dataclasses import dataclass
from typing import Literal

from hbo import files
from hbo.errors import DataError, UserError
from hbo.tasks.classify import layout
from hbo.tasks.classify.spec import CLASSIFY
from hbo.tasks.detect import formats
from hbo.tasks.detect.spec import DETECT
from hbo.tasks.reid.spec import REID
from hbo.tasks.spec import DataSet, Task

TASKS: dict[str, Task] = {"classify": CLASSIFY, "detect": DETECT, "reid": REID}
SETS: dict[str, DataSet] = {name: one for task in TASKS.values() for name, one in task.sets.items()}
COLUMNS: dict[str, str] = {name: said for task in TASKS.values() for name, said in task.columns.items()}
MORE: tuple[str, ...] = tuple(name for task in TASKS.values() for name in task.more)


@dataclass(frozen=True)
class Purpose:
    """Task and data set."""

    task: Literal[tuple(TASKS)] = "classify"  # pyright: ignore
    """Task: an image classifier, an SSD detector on the network's feature maps, or re-identification
    (features for retrieval). Default: the data set's task."""
    data: Literal[tuple(SETS)] = "elpv"  # pyright: ignore
    """Data set. elpv, digits and fake need no folder; the others need --data_dir. Default: elpv, or
    imagefolder if --data_dir contains images to classify; with --task detect, the one that reads --data_dir.
    voc, vocfolder and detectfolder are for detection, market1501 and marketfolder for re-identification."""


def task_of(data: str) -> str:
    """The task of a data set."""
    return next(name for name, task in TASKS.items() if data in task.sets)


def idle(task: str) -> list[str]:
    """Fields that a task does not use: those of the other tasks, and some of the shared ones."""
    return [name for other, its in TASKS.items() if other != task for name in its.own] + sorted(
        TASKS[task].idle
    )


def meant(path: str | None, task: str | None) -> str | None:
    """The data set for a folder given without --data: imagefolder, if it contains images in a known layout;
    another task's by `Task.meant`.

    Args:
        path: `data_dir`.
        task: the task, if given.

    Raises:
        DataError: its images are not in class folders, or it has none; or it has boxes, and the task is not
            given.
    """
    if path is None:
        return None
    root = files.expanded(path, "data_dir")
    if task not in (None, "classify"):
        return TASKS[task].meant(root) if task in TASKS else None
    others = [one.marks or (one.inner,) for name, one in SETS.items() if name != "imagefolder"]
    of_another = any(marks != ("",) and all((root / mark).is_dir() for mark in marks) for marks in others)
    if of_another:
        return None
    if layout.holds_images(root):
        if task is None and root.is_dir() and (boxes := formats.seen(root)):
            raise DataError(
                f"data_dir={path}: has {boxes}'s boxes; add --task detect, or --task classify if its folders"
                " are classes"
            )
        return "imagefolder"
    if root.is_dir() and (why := layout.unsorted(root)):
        raise DataError(f"data_dir={path}: {why}")
    return None


def check_folder(data: str, path: str | None, skip_bad: int | None, typed: bool = True) -> None:
    """Check that the data set uses the given folder, and that skip_bad is given only for folders of images.

    Args:
        data: the data set.
        path: `data_dir`.
        skip_bad: its field.
        typed: whether the data set was given, and is not the default.

    Raises:
        UserError: names the data set for such a folder, or says first that there is none.
    """
    if skip_bad and SETS[data].load is not None:
        raise UserError(f"skip_bad={skip_bad}: needs a folder of images, and data={data} has none; remove it")
    if path is None or SETS[data].takes_folder:
        return
    root = files.expanded(path, "data_dir")
    if not root.exists():
        looked = "" if os.path.isabs(path) else f" in {os.getcwd()}"
        unused = f"; correct its name, or remove --data_dir, as data={data} uses no folder" if typed else ""
        raise UserError(f"data_dir={path}: no such folder{looked}{files.beside(root) or unused}")
    if root.is_file() and root.suffix.lower() in files.IMAGES:
        raise UserError(f"data_dir={path}: is an image; give the folder that contains the class folders")
    fit = [
        n
        for n, one in SETS.items()
        if (marks := one.marks or (one.inner,)) != ("",) and all((root / m).is_dir() for m in marks)
    ]
    boxes = formats.seen(root) if root.is_dir() and not fit and not layout.holds_images(root) else ""
    if not fit and not boxes and root.is_dir() and not layout.holds_images(root):
        for one in SETS.values():
            if one.marks and (near := files.nearby(root, one.marks)):
                raise UserError(f"data_dir={path}: not a data set's folder{near}")
    fit = fit or (["detectfolder"] if boxes else ["imagefolder"])
    which = f", which has {boxes}'s annotations" if boxes else ""
    raise UserError(
        f"data_dir={path}: data={data} uses no folder, its images are in a package; use --data {fit[0]} for"
        f" the images of that folder{which}, or remove data_dir"
    )


def counts(data: str, path: str | None) -> tuple[int, int, int]:
    """Numbers of training images, validation images and classes: as published, or counted in the folder.

    Raises:
        DataError: the folder does not exist, or has the wrong layout.
    """
    one = SETS[data]
    if one.count is None:
        assert one.images is not None
        assert one.classes is not None
        return *one.images, one.classes
    root, count = one.root(data, path), one.count
    return files.looked_up(("counts", data, str(root)), lambda: count(root))
