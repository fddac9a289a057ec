"""Parquet as Hugging Face publishes sets: columns `image` (a struct of `bytes` and `path`) and `label`.

An image is a row of a row group, and a row group is read as a whole: in random order each image costs a whole
row group, so train with a cache.
"""

import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hbo import files
from hbo.archives.index import Entry
from hbo.errors import DataError, UserError

# ImageNet's names there: n01440764_10026_n01440764.JPEG, of class "tench, Tinca tinca". The folder has
# n01440764/n01440764_10026.JPEG, and ILSVRC2012_val_00000293_n01440764.JPEG in val likewise.
WORDNET = re.compile(r"(.+)_(n\d{8})(\.JPEG)")
_last = threading.local()  # a thread's open file, and the row group that it read last


def read(shard: Path, at: int, row: int, size: int) -> bytes:
    """Bytes by row group and row. A thread keeps the last row group: in storage order each is read once."""
    what = (os.getpid(), os.fspath(shard), files.stamp(shard))
    if getattr(_last, "what", None) != what:
        _last.what, _last.group, _last.file = what, None, _opened(shard)
    if _last.group != at:
        _last.group, _last.rows = at, _bytes(shard, _last.file, at)
    return _last.rows[row].as_py()


def forget() -> None:
    """Close this thread's file."""
    _last.__dict__.clear()


def entries(shard: Path) -> Iterator[Entry]:
    """The images of a shard.

    Raises:
        DataError: not parquet, truncated, other columns, or a row without class or image.
    """
    file = _opened(shard)
    schema = file.schema_arrow
    kind = schema.field("image").type if "image" in schema.names else None
    inner = {kind.field(i).name for i in range(kind.num_fields)} if kind is not None else set()
    if not {"bytes", "path"} <= inner or "label" not in schema.names:
        raise DataError(
            f"{shard}: has the columns {', '.join(schema.names)}; it must have image, a struct of bytes and"
            " path, and label"
        )
    names = _class_names(schema)
    for group in range(file.num_row_groups):
        table = _columns(shard, file, group, ["image.path", "label"])
        paths = [one and one["path"] for one in table["image"].to_pylist()]
        found = zip(paths, table["label"].to_pylist(), _bytes(shard, file, group), strict=True)
        for row, (path, label, content) in enumerate(found):
            where = f"{shard}: row {row} of row group {group}"
            if not content.is_valid:
                raise DataError(f"{where}: has no image bytes")
            if label is None or (isinstance(label, int) and label < 0):
                raise DataError(f"{where}: has no class (label {label})")
            if not isinstance(label, (int, str)):
                raise DataError(f"{where}: label {label!r}; must be a whole number, or a class's name")
            if isinstance(label, int) and names:
                if label >= len(names):
                    raise DataError(f"{where}: label {label}, but there are {len(names)} classes")
                label = names[label]
            name = os.path.basename(path or "")
            if not files.is_image(name):
                raise DataError(
                    f"{where}: path {path!r}: not an image by its name ({', '.join(sorted(files.IMAGES))})"
                )
            if (word := WORDNET.fullmatch(name)) is not None:
                name, label = word[1] + word[3], word[2]
            yield Entry(str(label), name, group, row, len(content.as_buffer()), "a column label")


def _opened(shard: Path) -> Any:
    """Pyarrow's file, one per thread and process."""
    try:
        import pyarrow as pa  # pyright: ignore[reportMissingImports]
        from pyarrow.parquet import ParquetFile  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(f"{shard}: reading parquet needs pyarrow: pip install -e '.[parquet]'") from None
    try:
        return ParquetFile(shard, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shard}: not a parquet file, or truncated; download it again ({error})") from None


def _columns(shard: Path, file: Any, group: int, names: list[str]) -> Any:
    """Columns of a row group.

    Raises:
        DataError: they are damaged.
    """
    import pyarrow as pa  # pyright: ignore[reportMissingImports]

    try:
        return file.read_row_group(group, columns=names, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shard}: row group {group} is damaged; download it again ({error})") from None


def _bytes(shard: Path, file: Any, group: int) -> list[Any]:
    """The images of a row group, pyarrow's scalars."""
    table = _columns(shard, file, group, ["image.bytes"])
    return [one for chunk in table["image"].chunks for one in chunk.field("bytes")]


def _class_names(schema: Any) -> list[str]:
    """The class names that Hugging Face stores; none if labels are plain numbers, or text."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return list(features["label"]["names"])
    except (KeyError, ValueError, TypeError):
        return []
