"""python -m hbo.bench data: loading against the reference pipeline, on one core, in turns in one run.

    python -m hbo.bench data --data imagefolder --data_dir DIR
    python -m hbo.bench data --json                                # elpv

All make batches of normalised floats from the recipe's training images, in this process on one thread; the
first turn warms up and builds the caches. Caches that did not exist before are deleted afterwards. The
rivals:

    reference   a file decoded by PIL and torchvision's first transforms, image by image: crop, flip,
                ToTensor, Normalize; the baseline
    uncached    what `hbo.fit` loads without a cache; a set in memory is decoded beforehand
    tar, parquet   the same images in two shards per part, without a cache: a folder with train/ and val/ of
                at most 4 GiB is packed for this; parquet if pyarrow is installed
    draft       with --decode draft, for random-resized crops
    disk, ram   with --cache disk and --cache ram
    jpeg        with --cache jpeg, for random-resized crops of photographs
    ram, bytes  ram without normalising, as in a loader's process: the device normalises

For random-resized crops of photographs, the installed JPEG decoders are compared, too.

`uncached`, `tar` and `parquet` are also read cold, in turns of their own: before each, the
files are dropped from the page cache.
"""

import importlib.util
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from hbo import config, files, flags
from hbo.archives import parquet
from hbo.bench import decoding, packing, turns
from hbo.data import cache, jpeg
from hbo.data.sampling import TrainBatches, loader
from hbo.tasks import SETS
from hbo.tasks.build import open_data
from hbo.tasks.classify import layout

TURNS, SECONDS = 7, 1.0  # turns measured, after one of warm-up; least seconds of loading per turn
PACKED = 4 << 30  # bytes of a folder that is packed for a comparison, at most
COMPARED = 256  # crops that are compared with and without the cache


def main(argv: list[str]) -> None:
    """The command line: the flags of `hbo.fit`, and `--json`."""
    parser = flags.make_parser(
        "hbo.bench data", "Images/s of loading on one core against the reference pipeline, in one run."
    )
    parser.add_argument("--json", action="store_true", help="Print JSON, with every turn.")
    given = flags.given(parser, argv)
    as_json = given.pop("json", False)
    run = config.resolve(**given)
    found = data(run)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    base = found["baseline"]
    print(
        f"{run.data}, {found['images']} images, {run.resolution} x {run.resolution}, crop {run.crop}, batch"
        f" {run.batch}"
    )
    print(
        f"{found['machine']}, torch {found['torch']}; {TURNS} turns of {SECONDS:g} s; ratios to {base}, turn"
        " by turn\n"
    )
    print(turns.table("images/s", found["images_per_second"], base))
    if found["images_per_second_cold"]:
        print("\ncold: files leave the page cache before each turn; ratios to uncached\n")
        print(turns.table("images/s", found["images_per_second_cold"], "uncached"))
    if decoded := found.get("decoding"):
        pixels = {name: "as PIL's" * same for name, same in decoded["as_pil"].items()}
        print("\ndecoding the JPEG cache's photographs, in CPU time; ratios to PIL\n")
        print(turns.table("images/s", decoded["images_per_second"], "PIL", beside={"pixels": pixels}))
    if "drafted" in found:
        print(f"\ndraft: a smaller image is decoded for {100 * found['drafted']:.0f} % of the crops")
    if found["cached_side"]:
        print(
            f"\nshort side {found['cached_side']} in the cache: {100 * found['cache_upsampled']:.0f} % of"
            " the crops have fewer"
            f" pixels than {run.resolution} on a side, {100 * found['uncached_upsampled']:.0f} % without the"
            " cache"
        )
        for name in ("disk", "jpeg", "draft"):
            levels = found.get("difference" if name == "disk" else f"difference_{name}")
            if levels is None:
                continue
            print(
                f"{name}: the same crops differ by {levels['mean']:.1f} of 255 levels on average"
                f" ({levels['median']:.1f}"
                f" in the median crop, {levels['most']:.1f} in the one that differs most), a pixel by"
                f" {levels['pixel']} at most"
            )


def data(run: config.Run) -> dict[str, Any]:
    """Images/s of each rival, one per turn, their ratios to the first, and the cache's effect on crops."""
    from hbo.data.preprocess import MEAN, STD

    mean, std = (torch.tensor(numbers).view(3, 1, 1) * 255 for numbers in (MEAN, STD))
    run = replace(run, decode="whole")
    kinds = ["disk", "ram", *(["jpeg"] if replace(run, cache="disk").cached_side else [])]
    runs = {kind: replace(run, cache=kind) for kind in kinds}
    there = {name: set(cache.root(fields).glob("*/pixels")) for name, fields in runs.items()}
    indexed = set(files.cache_root().glob("archives/*"))
    threads = torch.get_num_threads()
    folder = tempfile.TemporaryDirectory()
    try:
        sets: dict[str, Any] = {name: open_data(fields).train for name, fields in runs.items()}
        bare = replace(run, cache="none", cache_size=None)
        plain = open_data(bare).train
        packs = archives(run, Path(folder.name))
        packed = {form: open_data(replace(bare, data_dir=str(path))).train for form, path in packs.items()}
        drafts = {}
        if "jpeg" in kinds and bare.augment == "loader" and bare.auto_augment == "none":
            drafts = {"draft": open_data(replace(bare, decode="draft")).train}
        torch.set_num_threads(1)
        cold = {}
        if packed and hasattr(os, "posix_fadvise"):  # macOS has none
            every = {form: sorted(path.iterdir()) for form, path in packs.items()}
            every["uncached"] = [Path(path) for path in files_of(plain)]
            cold = turns.take_turns(
                {
                    form: partial(cold_rate, images, every[form], run, mean, std)
                    for form, images in {"uncached": plain, **packed}.items()
                },
                TURNS,
            )
        sets = {"reference": reference(run, sets["disk"]), "uncached": plain} | packed | drafts | sets
        batches = {name: endless(images, run, TrainBatches, loader) for name, images in sets.items()}
        rivals = {name: partial(rate, made, mean, std) for name, made in batches.items()}
        found = turns.take_turns(rivals | {"ram, bytes": partial(rate, batches["ram"])}, TURNS)
        changes = changed(plain, sets["disk"])
        if "jpeg" in sets:
            changes["difference_jpeg"] = changed(plain, sets["jpeg"])["difference"]
            changes["decoding"] = decoding.measured(sets["jpeg"].pixels, TURNS)
        if drafts:
            changes |= {
                "drafted": drafts["draft"].drafted(),
                "difference_draft": difference(plain, drafts["draft"]),
            }
        changes["bytes"] = {name: sets[name].pixels.path.stat().st_size for name in kinds}
    finally:
        torch.set_num_threads(threads)
        folder.cleanup()
        for path in set(files.cache_root().glob("archives/*")) - indexed:
            path.unlink()
        for name, fields in runs.items():
            for path in set(cache.root(fields).glob("*/pixels")) - there[name]:
                shutil.rmtree(path.parent)
    base = "reference"
    return turns.where() | {
        "data": run.data,
        "images": len(plain),
        "resolution": run.resolution,
        "crop": run.crop,
        "batch": run.batch,
        "cached_side": runs["disk"].cached_side,
        **changes,
        "jpeg_decoder": jpeg.DECODER,
        "baseline": base,
        "images_per_second": found,
        "images_per_second_cold": cold,
        "ratio": turns.ratios(found, base),
    }


def archives(run: config.Run, to: Path) -> dict[str, Path]:
    """The run's folder packed into shards, by format; none if it has no parts, or is too large."""
    one = SETS[run.data]
    if not one.photographs or run.data_dir is None or run.val_split:
        return {}
    root = one.root(run.data, run.data_dir) / one.inner
    parts = {part: layout.part_folder(root, part) for part in layout.PARTS}
    every = [path for folder in parts.values() for path in folder.glob("*/*")]
    if layout.kind(root) != "parts" or sum(path.stat().st_size for path in every) > PACKED:
        return {}
    forms = ["tar", *(["parquet"] if importlib.util.find_spec("pyarrow") else [])]
    return {form: packing.pack(parts, to / form, form) for form in forms}


def reference(run: config.Run, images: Any) -> Any:
    """The run's training images as the reference implementations load them.

    Args:
        run: for the recipe.
        images: opened with a cache, so that they still know their files.
    """
    from torchvision import transforms as v1

    from hbo.data.preprocess import MEAN, STD
    from hbo.data.sources import Files, Part

    size = run.resolution
    parts: list[Any] = {
        "random": [v1.RandomResizedCrop(size, scale=(run.crop_area, 1.0))],
        "pad": [
            v1.Resize(size),
            v1.CenterCrop(size),
            v1.RandomCrop(size, padding=size // 8, padding_mode="reflect"),
        ],
        "none": [v1.Resize(size), v1.CenterCrop(size)],
    }[run.crop]
    parts += [v1.RandomHorizontalFlip()] * (run.flip != "none") + [v1.RandomVerticalFlip()] * (
        run.flip == "both"
    )
    parts += [v1.ColorJitter(run.jitter, run.jitter)] * bool(run.jitter)
    transform = v1.Compose([*parts, v1.ToTensor(), v1.Normalize(MEAN, STD)])
    pil = v1.ToPILImage()

    class Reference(Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, item: tuple[int, int]) -> tuple[Any, int, int]:
            _, index = item
            get, i = images.get, index
            if isinstance(get, Part):
                get, i = get.get, get.indices[i]
            image = Files.__call__(get, i) if isinstance(get, Files) else pil(get(i)).convert("RGB")
            return transform(image), images.labels[index], index

    return Reference()


def endless(images: Any, run: config.Run, batches: Any, loader: Any) -> Iterator[Any]:
    """Training's batches, epoch after epoch, made in this process."""
    done = 0
    while True:
        for batch, _, _ in loader(
            images, batches(len(images), run.batch, run.seed, progress=lambda done=done: done), 0
        ):
            done += 1
            yield batch


def rate(batches: Iterator[Any], mean: Any = None, std: Any = None) -> float:
    """Images/s of some batches; bytes are normalised if `mean` and `std` are given."""
    count, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < SECONDS or not count:
        batch = next(batches)
        if mean is not None and not batch.is_floating_point():
            batch = batch.to(mean.dtype).sub_(mean).div_(std)
        count += len(batch)
    return count / seconds


def changed(plain: Any, cached: Any) -> dict[str, Any]:
    """How the cache changes the crops: the shares that are enlarged, and `difference`."""
    shares = cached.upsampled()
    if not shares:
        return {}
    return shares | {"difference": difference(plain, cached)}


def difference(plain: Any, other: Any) -> dict[str, float]:
    """How the same crops differ, in levels of 255: the crops' means, and the largest difference of a
    pixel.
    """
    items = [(0, i) for i in range(min(COMPARED, len(plain)))]
    found = [(plain[item][0].float() - other[item][0].float()).abs() for item in items]
    levels = [float(one.mean()) for one in found]
    return {
        "crops": len(levels),
        "mean": statistics.mean(levels),
        "median": statistics.median(levels),
        "most": max(levels),
        "pixel": int(max(one.max() for one in found)),
    }


def files_of(images: Any) -> list[str]:
    """The files of a folder's images."""
    get = images.source
    return [get.get.paths[i] for i in get.indices] if hasattr(get, "indices") else get.paths


def cold_rate(images: Any, paths: list[Path], run: config.Run, mean: Any, std: Any) -> float:
    """As `rate`, after the files have left the page cache."""
    parquet.forget()  # pages of a mapped file stay in the cache
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)  # and so do pages that are not yet written
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
    return rate(endless(images, run, TrainBatches, loader), mean, std)
