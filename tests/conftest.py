"""What the tests share: the published figures, the layout of released checkpoints, and commands in separate
processes.
"""

import csv
import json
import os
import signal
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import forked
import numpy as np
import pytest
import short as shorter
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

from hbo import block, nets
from hbo.metrics import Detections, Outcomes, Rankings
from hbo.nets import size, tables
from hbo.tasks.classify.module import Classify
from hbo.tasks.detect import network as detect_network
from hbo.tasks.detect import ssd
from hbo.tasks.detect.module import Detect
from hbo.tasks.reid import embedding
from hbo.tasks.reid import network as reid_network
from hbo.tasks.reid.module import Reid

ROOT = Path(__file__).parents[1]
REFERENCE = Path(__file__).parent / "reference"
PUBLISHED = ROOT / "papers" / "hbonet" / "published"
# Shapes in signatures are checked only under the tests, so they cost users nothing.
check_shapes = beartype(conf=BeartypeConf(is_pep484_tower=True))
for owner, *names in (
    (block.HarmoniousBottleneck, "forward"),
    (block.InvertedResidual, "forward"),
    (block.BlurPool, "forward"),
    (nets.Net, "forward"),
    (nets.Pyramid, "pyramid"),
    (Outcomes, "update"),
    (Classify, "forward", "loss"),
    (Detect, "forward"),
    (Detections, "update"),
    (ssd.Features, "forward"),
    (ssd.Detector, "forward"),
    (embedding.Embedding, "forward"),
    (Reid, "forward", "retrieved_by"),
    (Rankings, "update"),
):
    for name in names:
        setattr(owner, name, jaxtyped(getattr(owner, name), typechecker=check_shapes))
QUIET = {"WANDB_MODE": "disabled"}
# A script's peak memory, in bytes. (Linux's ru_maxrss starts at the value of the parent process.)
PEAK = """
import re, resource, sys
from pathlib import Path
def peak():
    if sys.platform == "linux":
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
"""
# nohup and a shell's & ignore these signals, and every process that the tests start would inherit that.
if threading.current_thread() is threading.main_thread():
    for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


# The files that take longest, the longest first: some wait for SLURM or W&B.
LONGEST = (
    "test_slurm",
    "test_agents",
    "test_bench",
    "test_notebooks",
    "test_pool",
    "test_fit",
    "test_signals",
    "test_reid_runs",
)


def pytest_collection_modifyitems(items: list) -> None:
    """Run the slowest files first, then those with most slow tests, so that all processes finish together."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))

    def place(name: str) -> int:
        return next((i for i, longest in enumerate(LONGEST) if name.startswith(longest)), len(LONGEST))

    items.sort(key=lambda item: (place(item.path.name), -slow[item.path]))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error: object) -> None:
    """Print how a process of pytest-xdist ended that should not have: -9, for example, is SIGKILL."""
    if error:
        print(f"\n{node.gateway.id}: ended with status {node.gateway._io.popen.wait(10)}", flush=True)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print a failure when it happens; the full report comes at the end, if there is one."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        crash = getattr(report.longrepr, "reprcrash", None)
        why = (crash.message if crash else report.longreprtext).partition("\n")[0]
        print(f"\n{report.nodeid}: {why}", flush=True)


def published(*tables: int) -> list[dict[str, str]]:
    """The rows of the paper's tables, each with its table's number."""
    rows = []
    for number in tables:
        with open(PUBLISHED / f"table{number}.csv") as file:
            rows += [{"table": str(number), **row} for row in csv.DictReader(file)]
    return rows


def released_state(variant: str) -> dict[str, torch.Tensor]:
    """A released checkpoint's layout, filled with the reference's weights (../shared/reference/README.md's
    recipe).
    """
    shapes = json.loads((REFERENCE / "checkpoint_keys.json").read_text())[variant]
    return {key: _weights(key, shape) for key, shape in shapes.items()}


def _weights(key: str, shape: list[int]) -> torch.Tensor:
    draw = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if key.endswith("running_mean"):
        values = 0.1 * draw.standard_normal(shape)
    elif key.endswith("running_var"):
        values = 0.9 + 0.2 * draw.random_sample(shape)
    elif len(shape) >= 2:
        values = draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    else:
        values = 0.1 * draw.standard_normal(shape) + (1 if key.endswith("weight") else 0)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def start(
    module: str,
    *args: object,
    env: dict[str, str | None] | None = None,
    cwd: str | Path | None = None,
    start_new_session: bool = False,
) -> forked.Process:
    """Start `python -m module args`, or `python -c args`, in a process of its own; None in `env` removes a
    variable.
    """
    words = [*(["-c"] if module == "-c" else ["-m", module]), *map(str, args)]
    merged = {**os.environ, **QUIET, **(env or {})}
    environment = {name: value for name, value in merged.items() if value is not None}
    return forked.Process(words, environment, str(cwd or Path.cwd()), start_new_session)


def call(
    module: str,
    *args: object,
    expect: int = 0,
    env: dict[str, str | None] | None = None,
    cwd: str | Path | None = None,
) -> tuple[str, str]:
    """Run the command to its end; returns its output and errors. Fails if the exit status is not the expected
    one.
    """
    process = start(module, *args, env=env, cwd=cwd)
    try:
        out, err = process.communicate()
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode == expect, f"exit {process.returncode}\n{out}\n{err}"
    return out, err


def only_row(out: Path) -> tuple[dict, Path]:
    """The only row in a folder of runs, and the run's folder."""
    (path,) = out.glob("*/*/row.json")
    return json.loads(path.read_text()), path.parent


def make_folder(root: Path, train: dict[str, int], val: dict[str, int], size: int = 40) -> Path:
    """An image folder of random PNGs; {class: number of images} for each split."""
    from PIL import Image

    draw = np.random.RandomState(0)
    for split, classes in (("train", train), ("val", val)):
        for name, number in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                Image.fromarray(draw.randint(0, 256, (size, size + 7, 3), dtype=np.uint8)).save(
                    folder / f"{i}.png"
                )
    return root


def make_voc(root: Path, train: int = 8, test: int = 4, size: tuple[int, int] = (96, 80)) -> Path:
    """A folder in VOC's layout that can be learnt: one to three rectangles per photograph, red for `a`, blue
    for `b`.
    """
    from PIL import Image, ImageDraw

    draw, (width, height) = np.random.RandomState(0), size
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, names in (("trainval", range(train)), ("test", range(train, train + test))):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{n:06d}\n" for n in names))
        for n in names:
            image, boxes = Image.new("RGB", size, (120, 120, 120)), []
            for place in range(draw.randint(1, 4)):  # side by side, so that none hides another
                x, y = place * width // 3 + draw.randint(0, 4), draw.randint(0, height // 2)
                box = (
                    x,
                    y,
                    x + draw.randint(width // 6, width // 3 - 6),
                    y + draw.randint(height // 4, height // 2 - 2),
                )
                name = "ab"[draw.randint(2)]
                ImageDraw.Draw(image).rectangle(box, fill={"a": (220, 30, 30), "b": (30, 30, 220)}[name])
                # VOC counts from 1 and includes the last pixel.
                boxes.append((name, *(corner + 1 for corner in box)))
            # In flat photographs whole channels are constant.
            grain = draw.randint(-15, 16, (height, width, 3))
            image = Image.fromarray((np.asarray(image) + grain).astype(np.uint8))
            image.save(root / "JPEGImages" / f"{n:06d}.jpg", quality=95)
            annotate(root / "Annotations" / f"{n:06d}.xml", boxes, size)
    return root


def annotate(path: Path, boxes: list[tuple], size: tuple[int, int]) -> None:
    """Write a VOC annotation: (class, xmin, ymin, xmax, ymax) and, for a difficult object, "difficult"."""
    objects = "".join(
        f"<object><name>{name}</name><difficult>{int(bool(hard))}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2, *hard in boxes
    )
    size_ = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    path.write_text(f"<annotation>{size_}{objects}</annotation>")


def make_market(
    root: Path, train: int = 6, test: int = 4, views: int = 3, size: tuple[int, int] = (48, 96)
) -> Path:
    """A folder in Market's layout that can be learnt: one colour per identity, two cameras, the second
    darker.

    `views` images per identity and camera; each identity to retrieve has one query per camera. The gallery
    also has a distractor and a junk image.
    """
    from PIL import Image

    draw = np.random.RandomState(0)
    hues = draw.randint(60, 256, (train + test + 2, 3))
    named = [("bounding_box_train", f"{i + 1:04d}", hues[i], range(views)) for i in range(train)]
    for i in range(train, train + test):
        named += [
            ("query", f"{i + 1:04d}", hues[i], range(1)),
            ("bounding_box_test", f"{i + 1:04d}", hues[i], range(1, views)),
        ]
    named += [("bounding_box_test", who, hues[-1 - n], range(1)) for n, who in enumerate(("0000", "-1"))]
    for folder, who, hue, frames in named:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for camera in (1, 2):
            for frame in frames:
                pixels = (
                    (hue / camera**0.5 + draw.normal(0, 12, (size[1], size[0], 3)))
                    .clip(0, 255)
                    .astype(np.uint8)
                )
                Image.fromarray(pixels).save(
                    root / folder / f"{who}_c{camera}s1_{frame:06d}_01.jpg", quality=95
                )
    return root


def make_runs(root: Path, *studies: str, **where) -> Path:
    """A folder of runs as `hbo.fit` leaves it, from the committed rows; `where` selects rows by field."""
    from hbo.analysis import results

    for row, curve in results._read(str(ROOT / "ablations"), studies):
        if any(row.get(name) not in values for name, values in where.items()):
            continue
        folder = root / row["study"] / row["key"]
        folder.mkdir(parents=True)
        (folder / "row.json").write_text(json.dumps({**row, "out": str(root), "data_dir": None}))
        lines = [list(curve[0]), *([*point.values()] for point in curve)]
        (folder / "metrics.csv").write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return root


@pytest.fixture(autouse=True)
def _threads():
    """Two threads, the default of a run; one if two processes share the tests."""
    torch.set_num_threads(1 if os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") != "1" else 2)


@contextmanager
def _shortened() -> Iterator[None]:
    startup = str(Path(__file__).parent / "startup")
    try:
        with pytest.MonkeyPatch.context() as patch:
            for net, table in shorter.shortened(tables).items():
                patch.setitem(tables.TABLES, net, table)
            patch.setenv(shorter.VARIABLE, "1")
            patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (startup, os.environ.get("PYTHONPATH")))))
            _forget_costs()
            yield
    finally:
        _forget_costs()


def _forget_costs() -> None:
    """Forget the costs of the networks that this process has counted so far."""
    for module in (size, detect_network, reid_network):
        for known in vars(module).values():
            if hasattr(known, "cache_clear"):
                known.cache_clear()


@pytest.fixture
def short() -> Iterator[None]:
    """Networks of three blocks, here and in every process that the test starts."""
    with _shortened():
        yield


@pytest.fixture(scope="module")
def short_networks() -> Iterator[None]:
    """The same for all tests of a module and their shared fixtures."""
    with _shortened():
        yield


@pytest.fixture
def cache_memory(tmp_path, monkeypatch):
    """Keep the memory of `--cache ram` in the test's own folder."""
    monkeypatch.setattr("hbo.data.cache.MEMORY", tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image folder: two classes, 12 training and 6 validation images; some modules define their own."""
    return make_folder(tmp_path_factory.mktemp("set"), {"a": 6, "b": 6}, {"a": 3, "b": 3}, size=80)
