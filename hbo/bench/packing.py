"""Packs a folder of images as WebDataset's tars or Hugging Face's parquet, for benchmarks and tests."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

Sample = tuple[str, str, bytes]  # class, file name, content


def of_folder(folder: Path) -> list[Sample]:
    """The images of FOLDER/CLASS/NAME."""
    return [(path.parent.name, path.name, path.read_bytes()) for path in sorted(folder.glob("*/*"))]


def write_tar(path: Path, samples: Iterable[Sample], cls: bool) -> Path:
    """CLASS/NAME.jpg; or, with `cls`, WebDataset's NAME.jpg and NAME.cls, whose names must be unique."""
    with tarfile.open(path, "w") as tar:
        for label, name, content in samples:
            if cls:
                _add(tar, f"{name.split('.')[0]}.cls", label.encode())
            _add(tar, name if cls else f"{label}/{name}", content)
    return path


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_parquet(path: Path, samples: Iterable[Sample], group: int = 100) -> Path:
    """Columns `image` and `label`, split into row groups."""
    import pyarrow as pa  # pyright: ignore[reportMissingImports]
    from pyarrow import parquet  # pyright: ignore[reportMissingImports]

    rows = list(samples)
    names = sorted({label for label, *_ in rows})
    table = pa.table(
        {
            "image": [{"bytes": content, "path": name} for _, name, content in rows],
            "label": [names.index(label) for label, *_ in rows],
        }
    )
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    about = json.dumps({"info": {"features": features}}).encode()
    parquet.write_table(table.replace_schema_metadata({b"huggingface": about}), path, row_group_size=group)
    return path


def pack(parts: Mapping[str, Path], to: Path, form: str, shards: int = 2, cls: bool = False) -> Path:
    """The folders of train and val as n shards, each with every n-th image, so in another order."""
    to.mkdir(parents=True)
    for part, folder in parts.items():
        samples = of_folder(folder)
        for n in range(shards):
            own = samples[::-1][n::shards]
            if form == "tar":
                write_tar(to / f"{part}-{n:06d}.tar", own, cls)
            else:
                write_parquet(to / f"{part}-{n:05d}-of-{shards:05d}.parquet", own)
    return to
