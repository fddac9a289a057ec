"""What a network is trained to do: a folder each, declared in its spec.py, and here merged; light.

A new task is a folder, a line in `TASKS`, its fields among the bases of `hbo.config.Run`, and a line in `hbo.tasks.build`.
"""

from hbo import files
from hbo.errors import UserError
from hbo.tasks.classify.spec import CLASSIFY
from hbo.tasks.detect.spec import DETECT
from hbo.tasks.reid.spec import REID
from hbo.tasks.spec import DataSet, Task

TASKS: dict[str, Task] = {"classify": CLASSIFY, "detect": DETECT, "reid": REID}
SETS: dict[str, DataSet] = {name: one for task in TASKS.values() for name, one in task.sets.items()}
COLUMNS: dict[str, str] = {name: said for task in TASKS.values() for name, said in task.columns.items()}
MORE: tuple[str, ...] = tuple(name for task in TASKS.values() for name in task.more)


def task_of(data: str) -> str:
    """What a data set is for."""
    return next(name for name, task in TASKS.items() if data in task.sets)


def idle(task: str) -> list[str]:
    """Fields that a task does not use: those of the other tasks, and some of the shared ones."""
    return [name for other, its in TASKS.items() if other != task for name in its.own] + sorted(TASKS[task].idle)


def check_folder(data: str, path: str | None, skip_bad: int | None) -> None:
    """Refuse a folder that the data set would not look at, and images to be passed over where there are no files of them.

    Raises:
        UserError: says which set takes such a folder.
    """
    if skip_bad and SETS[data].load is not None:
        raise UserError(f"skip_bad={skip_bad}: is of a folder of images, which data={data} is not; leave it out")
    if path is None or SETS[data].takes_folder:
        return
    root = files.expanded(path, "data_dir")
    fit = [
        n
        for n, one in SETS.items()
        if (marks := one.marks or (one.inner,)) != ("",) and all((root / m).is_dir() for m in marks)
    ]
    raise UserError(
        f"data_dir={path}: data={data} takes no folder, its images come with the installation; take --data"
        f" {fit[0] if fit else 'imagefolder'} for the images of that folder, or leave data_dir out"
    )


def counts(data: str, path: str | None) -> tuple[int, int, int]:
    """Images of a set to train on and to report, and classes: as published, or as its folder has them.

    Raises:
        DataError: the folder is not there, or not laid out as it must be.
    """
    one = SETS[data]
    if one.count is None:
        assert one.images is not None
        assert one.classes is not None
        return *one.images, one.classes
    root, count = one.root(data, path), one.count
    return files.looked_up(("counts", data, str(root)), lambda: count(root))
