"""python -m hbo.data.check DIR: decode every image below a folder, and list those that cannot be read, and
what else training refuses in a folder of classes: files that are not images, empty classes.

    python -m hbo.data.check DIR
    python -m hbo.data.check DIR --data imagefolder     # only those of train/ and val/

Exit status 2 if there is one. A run reads only headers before it trains, and the rest of an image when it
needs it; `--skip_bad N` decodes all images first, and skips at most N.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from hbo import files, packed
from hbo.config import Run
from hbo.data.sources import read_image
from hbo.errors import DataError, one_line
from hbo.runs import cluster
from hbo.tasks import SETS, meant
from hbo.tasks.classify import layout
from hbo.words import Parser


def main(argv: list[str] | None = None) -> None:
    """The command line: a folder, and which set it is."""
    parser = Parser(prog="python -m hbo.data.check", description="Decode every image below a folder.")
    parser.add_argument("folder", help="What --data_dir names, or any other folder.")
    parser.add_argument(
        "--data", choices=list(SETS), help="The data set: check only the folders that it reads."
    )
    with one_line():
        args = parser.parse_args(argv)
        paths = images_of(args.folder, args.data)
        bad = unreadable(paths)
        strange = strangers(args.folder, args.data)
        for line in [*bad.values(), *strange]:
            print(line)
        print(
            f"{len(paths)} images in {args.folder},"
            f" {f'{len(bad)} of them cannot' if bad else 'all of them can'} be read"
        )
    if bad or strange:
        raise SystemExit(2)


def images_of(folder: str, data: str | None) -> list[str]:
    """The images below a folder, those of a CSV, or those below the folders that a data set reads.

    Raises:
        DataError: there is no such folder, or no image.
    """
    root = files.expanded(folder, "folder")
    one = SETS[data] if data else None
    inner = ("",) if one is None else one.folders(root) if one.folders else one.marks or (one.inner,)
    photographs = one is None or one.photographs
    if data == "imagefolder" or (photographs and (root.is_file() or layout.kind(root) == "archive")):
        how = layout.kind(root)
        if how in ("csv", "archive"):
            listed = layout.contents(root)
            return sorted(
                os.fspath(file) for part in listed.values() for inside in part.values() for file in inside
            )
        inner = (
            ("",) if how == "classes" else tuple(layout.part_folder(root, part).name for part in layout.PARTS)
        )
    paths: list[str] = []
    for part in inner:
        if not (root / part).is_dir():
            raise DataError(f"{root / part}: no such folder")
        below = files.folders_below(root / part)
        paths += [
            os.path.join(where, name) for where, names in below for name in names if files.is_image(name)
        ]
    if not paths:
        raise DataError(f"{root}: holds no images ({', '.join(sorted(files.IMAGES))})")
    return sorted(paths)


def strangers(folder: str, data: str | None) -> list[str]:
    """What training refuses in a folder of classes, one per line: files whose names are not an image's, and
    empty classes; nothing of other sets, of a CSV or of archives.
    """
    root = files.expanded(folder)
    try:
        how = layout.kind(root) if (data or meant(folder, None)) == "imagefolder" else None
    except DataError:  # images in no class folder: nothing is strange there
        return []
    parents = {"classes": [root], "parts": [layout.part_folder(root, part) for part in layout.PARTS]}
    found = []
    for parent in (one for one in parents.get(how or "", []) if one.is_dir()):
        for one in sorted(e for e in parent.iterdir() if e.is_dir() and not files.is_litter(e.name)):
            held = sorted(name for name in os.listdir(one) if not files.is_litter(name))
            odd = [name for name in held if not files.is_image(name) and (one / name).is_file()]
            found += [f"{one / name}: not an image by its name" for name in odd]
            empty = not any((one / name).is_file() for name in held) and not files.images_by_folder(one)
            found += [f"{one}: an empty class"] * empty
    return found


def unreadable(paths: list[str]) -> dict[str, str]:
    """Images that cannot be decoded -> the reason, with their name; all are tried, with a progress bar."""
    order = [paths[i] for i in packed.as_stored(paths)]
    parts = [order[i : i + 64] for i in range(0, len(order), 64)]
    found: dict[str, str] = {}
    with (
        ThreadPoolExecutor(cluster.cores()) as pool,
        tqdm(total=len(paths), desc="check", unit="image", leave=False) as bar,
    ):
        for part, bad in zip(parts, pool.map(_unreadable, parts), strict=True):
            found |= bad
            bar.update(len(part))
    return {path: found[path] for path in paths if path in found}


def _unreadable(paths: list[str]) -> dict[str, str]:
    found = {}
    for path in paths:
        try:
            read_image(path)
        except DataError as error:
            found[path] = " ".join(str(error).split())
    return found


def passed_over(run: Run, parts: Mapping[str, list[str]]) -> tuple[set[str], dict[str, Any], list[str]]:
    """What `skip_bad` leaves out: the paths, facts for the row, warnings.

    Args:
        run: all fields.
        parts: `train` and `val`, or one of them, with their images.

    Raises:
        DataError: more cannot be read than may be left out.
    """
    if not run.skip_bad:
        return set(), {}, []
    bad = unreadable([path for part in parts.values() for path in part])
    if len(bad) > run.skip_bad:
        raise DataError(
            f"skip_bad={run.skip_bad}: {len(bad)} images cannot be read, such as {next(iter(bad.values()))};"
            f" python -m hbo.data.check {run.data_dir} lists them; fix them, or use --skip_bad {len(bad)}"
        )
    facts = {f"skipped_{name}": sum(path in bad for path in part) for name, part in parts.items()}
    return set(bad), facts | {"skipped": list(bad.values())}, [f"skipped: {why}" for why in bad.values()]


if __name__ == "__main__":
    main()
