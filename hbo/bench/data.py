"""python -m hbo.bench data: loading beside the reference pipeline, on one core, in turns in one run.

    python -m hbo.bench data --data imagefolder --data_dir DIR
    python -m hbo.bench data --json                                # elpv

All make batches of the recipe's training part, to normalised floats, in this process on one thread; the first turn
warms up and builds what a cache needs. What of a cache was not there before is deleted again. The rivals:

    reference   a file decoded by PIL and torchvision's first transforms, image by image: crop, flip, ToTensor, Normalize; the baseline
    uncached    what `hbo.fit` loads without a cache; a set in memory is decoded beforehand
    disk, ram   with --cache disk and --cache ram
    ram, bytes  the last without normalising: what a loader's process does for a device, which normalises by itself
"""

import json
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils.data import Dataset

from hbo import config, flags
from hbo.bench import turns
from hbo.data import cache
from hbo.data.sampling import TrainBatches, loader
from hbo.tasks.build import open_data

TURNS, SECONDS = 7, 1.0  # turns measured, after one of warm-up; of loading in a turn, at least
COMPARED = 256  # crops that are compared with and without the cache


def main(argv: list[str]) -> None:
    """The command line: the flags of `hbo.fit`, and `--json`."""
    parser = flags.make_parser("hbo.bench data", "Images/s of loading on one core beside the reference pipeline, in one run.")
    parser.add_argument("--json", action="store_true", help="Print JSON, every turn in it.")
    given = flags.given(parser, argv)
    as_json = given.pop("json", False)
    run = config.resolve(**given)
    found = data(run)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    base = found["baseline"]
    print(f"{run.data}, {found['images']} images, {run.resolution} x {run.resolution}, crop {run.crop}, batch {run.batch}")
    print(f"{found['machine']}, torch {found['torch']}; {TURNS} turns of {SECONDS:g} s; ratios to {base}, turn by turn\n")
    print(turns.table("images/s", found["images_per_second"], base))
    if found["cached_side"]:
        levels = found["difference"]
        print(
            f"\nshort side {found['cached_side']} in the cache: {100 * found['cache_upsampled']:.0f} % of the crops have fewer"
            f" pixels than {run.resolution} on a side, {100 * found['uncached_upsampled']:.0f} % without the cache;"
            f"\nthe same crops differ by {levels['mean']:.1f} of 255 levels on average ({levels['median']:.1f} in the median"
            f" crop, {levels['most']:.1f} in the one that differs most)"
        )


def data(run: config.Run) -> dict[str, Any]:
    """Images/s of each rival, a value a turn, their ratios to the first, and what the cache changes of the crops."""
    from hbo.tasks.base import MEAN, STD

    mean, std = (torch.tensor(numbers).view(3, 1, 1) * 255 for numbers in (MEAN, STD))
    runs = {name: replace(run, cache=kind) for name, kind in (("disk", "disk"), ("ram", "ram"))}
    there = {name: set(cache.root(fields).glob("*/pixels")) for name, fields in runs.items()}
    threads = torch.get_num_threads()
    try:
        sets: dict[str, Any] = {name: open_data(fields).train for name, fields in runs.items()}
        plain = open_data(replace(run, cache="none", cache_size=None)).train
        sets = {"reference": reference(run, sets["disk"]), "uncached": plain} | sets
        torch.set_num_threads(1)
        batches = {name: endless(images, run, TrainBatches, loader) for name, images in sets.items()}
        rivals = {name: partial(rate, made, mean, std) for name, made in batches.items()}
        found = turns.take_turns(rivals | {"ram, bytes": partial(rate, batches["ram"])}, TURNS)
        changes = changed(plain, sets["disk"])
    finally:
        torch.set_num_threads(threads)
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
        "baseline": base,
        "images_per_second": found,
        "ratio": turns.ratios(found, base),
    }


def reference(run: config.Run, images: Any) -> Any:
    """The run's training images as the reference implementations load them.

    Args:
        run: for the recipe.
        images: opened with a cache, so that they still know their files.
    """
    from torchvision import transforms as v1

    from hbo.data.sources import Files, Part
    from hbo.tasks.base import MEAN, STD

    size = run.resolution
    parts: list[Any] = {
        "random": [v1.RandomResizedCrop(size, scale=(run.crop_area, 1.0))],
        "pad": [v1.Resize(size), v1.CenterCrop(size), v1.RandomCrop(size, padding=size // 8, padding_mode="reflect")],
        "none": [v1.Resize(size), v1.CenterCrop(size)],
    }[run.crop]
    parts += [v1.RandomHorizontalFlip()] * (run.flip != "none") + [v1.RandomVerticalFlip()] * (run.flip == "both")
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
        for batch, _, _ in loader(images, batches(len(images), run.batch, run.seed, progress=lambda done=done: done), 0):
            done += 1
            yield batch


def rate(batches: Iterator[Any], mean: Any = None, std: Any = None) -> float:
    """Images/s of some batches, bytes normalised if it is said how."""
    count, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < SECONDS or not count:
        batch = next(batches)
        if mean is not None and not batch.is_floating_point():
            batch = batch.to(mean.dtype).sub_(mean).div_(std)
        count += len(batch)
    return count / seconds


def changed(plain: Any, cached: Any) -> dict[str, Any]:
    """What the cache changes of the crops: shares that are enlarged, and the difference of the same crops in levels of 255."""
    shares = cached.upsampled()
    if not shares:
        return {}
    items = [(0, i) for i in range(min(COMPARED, len(plain)))]
    levels = [float((plain[item][0].float() - cached[item][0].float()).abs().mean()) for item in items]
    return shares | {
        "difference": {
            "crops": len(levels),
            "mean": statistics.mean(levels),
            "median": statistics.median(levels),
            "most": max(levels),
        }
    }
