"""python -m hbo.predict CHECKPOINT IMAGE...: run a trained network on photographs.

    python -m hbo.predict runs/default/KEY cat.jpg                           # a classifier: top 5 classes
    python -m hbo.predict runs/default/KEY photos/ --out photos.csv          # a folder and its subfolders
    python -m hbo.predict runs/default/KEY 'photos/*.jpg' --out boxes.json   # a detector: COCO's format
    python -m hbo.predict runs/default/KEY gallery/ --out features.npz       # a re-identifier: features
    python -m hbo.predict hbonet_0_5.pth cat.jpg                             # the authors' release

Photographs are rotated by their EXIF, resized and cropped as in the run's evaluation.
"""

import glob
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from hbo import files
from hbo.config import Run
from hbo.data.preprocess import Preprocess
from hbo.data.sources import read_image
from hbo.errors import DataError, UserError, one_line
from hbo.fields import Machine
from hbo.runs import checkpoint
from hbo.tasks import build
from hbo.words import Parser

BATCH = 32  # photographs per batch
OPTIONS = {"top": "classify", "score": "detect"}  # option -> its task


def main(argv: list[str] | None = None) -> None:
    """The command line.

    Exit status: 0; 1 if a photograph could not be read (it is named, and the others are written); 2 for a
    wrong flag, checkpoint or path.
    """
    parser = Parser(prog="python -m hbo.predict", description="Run a trained network on photographs.")
    parser.add_argument(
        "checkpoint", help="A run's folder, its last.ckpt, its key, or a .pth of the authors' release."
    )
    parser.add_argument(
        "images", nargs="+", help="Files, folders (with subfolders) and patterns such as 'DIR/*.jpg'."
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="File to write: .csv for a classifier, .json for a detector, .npz for features.",
    )
    parser.add_argument("--top", type=int, help="Number of classes to print, of a classifier. [5]")
    parser.add_argument("--score", type=float, help="Minimum score of a box, of a detector, in [0, 1]. [0.5]")
    parser.add_argument("--resolution", type=int, help="Side of the input in pixels. [as trained]")
    parser.add_argument("--threads", type=int, default=Machine.threads, help="CPU threads. [2]")
    parser.add_argument(
        "--accelerator", choices=["auto", "cpu", "gpu"], default="auto", help="Device. [auto]"
    )
    with one_line():
        args = parser.parse_args(argv)
        given = {"threads": args.threads, "accelerator": args.accelerator}
        given |= {} if args.resolution is None else {"resolution": args.resolution}
        options = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
        unread = predict(args.checkpoint, args.images, args.out, given, **options)
    if unread:
        raise SystemExit(1)


def predict(
    path: str, images: list[str], out: Path | None, given: dict[str, Any], **options: Any
) -> list[str]:
    """Print or write a network's predictions; unreadable photographs go to standard error with the reason.

    Args:
        path: a run's folder, its last.ckpt, its key, or a released state dict.
        images: files, folders and patterns.
        out: the file to write; None: print one line per photograph.
        given: fields of `Run` that override the checkpoint's.
        options: `top` for a classifier, `score` for a detector.

    Raises:
        UserError: no such checkpoint or photograph; an option of another task; a file that cannot be written;
        no photograph could be read; the network's outputs are not finite.
    """
    paths = found(images)
    trained = opened(path, given)
    trained.warn()
    run = trained.run
    _check(run, out, options)
    torch.set_num_threads(run.threads)
    device = _device(run)
    task = build.restored(trained).to(device)
    answers = build.predictions(task, **options)
    if out and out.suffix != answers.suffix:
        raise UserError(f"out={out}: a network trained to {run.task} writes {answers.suffix}")
    if not out and answers.suffix == ".npz":
        raise UserError("features need a file to be written to; add --out features.npz")
    bad, preprocess = dict[str, str](), build.preprocess(run)
    bar = tqdm(total=len(paths), desc="predict", unit=" images", leave=False, disable=None if out else True)
    for chunk in (paths[start : start + BATCH] for start in range(0, len(paths), BATCH)):
        pixels, sizes, read = [], [], []
        for file, what in zip(
            chunk, files.in_threads(lambda file: _read(file, preprocess), chunk), strict=True
        ):
            if isinstance(what, DataError):
                bad[file] = str(what)
                tqdm.write(f"warning: {what}", file=sys.stderr)
                continue
            read.append(file)
            pixels.append(what[0])
            sizes.append(what[1])
        if read:
            with torch.inference_mode():
                lines = answers.add(read, sizes, torch.stack(pixels).to(device))
            if not out:
                print(*lines, sep="\n")
        bar.update(len(chunk))
    bar.close()
    if len(bad) == len(paths):
        raise UserError(
            f"none of the {len(paths)} photographs can be read; the first error: {next(iter(bad.values()))}"
        )
    if out:
        try:
            answers.save(out)
        except OSError as error:
            raise _not_written(out, error) from None
        print(f"{answers.summary()}; {out}")
    if bad:
        print(f"{len(bad)} of {len(paths)} photographs could not be read and were skipped", file=sys.stderr)
    return list(bad)


def opened(path: str | Path, given: dict[str, Any]) -> checkpoint.Trained:
    """The checkpoint, for its network.

    Raises:
        UserError: no such file, or neither a run's checkpoint nor a released network.
    """
    return checkpoint.network(files.located(path), given)


def found(images: Iterable[str]) -> list[str]:
    """The files, each once, in the order given; a folder's sorted by name.

    Raises:
        UserError: no such file; a folder or pattern without images; a file whose name is not an image's.
    """
    return list(dict.fromkeys(file for word in images for file in _files(word)))


def _files(word: str) -> Iterator[str]:
    path = files.expanded(word, "images")
    if path.is_dir():
        inside = sorted(
            f"{folder}/{name}"
            for folder, names in files.folders_below(path)
            for name in names
            if files.is_image(name)
        )
        if not inside:
            raise UserError(
                f"images={word}: the folder contains no image ({', '.join(sorted(files.IMAGES))})"
            )
        yield from inside
    elif path.is_file():
        yield str(path)  # whatever its suffix: the user named it
    elif glob.has_magic(word):
        inside = [
            file
            for file in sorted(glob.glob(str(path), recursive=True))
            if files.is_image(file) and Path(file).is_file()
        ]
        if not inside:
            raise UserError(f"images={word}: no image matches this pattern")
        yield from inside
    else:
        raise UserError(f"images={word}: no such file or folder")


def _check(run: Run, out: Path | None, options: dict[str, Any]) -> None:
    """Check all options before anything is computed."""
    for name, value in options.items():
        if OPTIONS[name] != run.task:
            raise UserError(
                f"{name}={value}: is an option of task={OPTIONS[name]}; this network was trained with"
                f" task={run.task}"
            )
    if options.get("top", 1) < 1:
        raise UserError(f"top={options['top']}: must be at least 1")
    if not 0 <= options.get("score", 0) <= 1:
        raise UserError(f"score={options['score']}: must be in [0, 1]")
    if out and out.is_dir():
        raise UserError(f"out={out}: is a folder; name a file in it")
    if out and not out.absolute().parent.is_dir():
        raise UserError(f"out={out}: there is no folder {out.parent}")
    if out:
        try:
            files.check_writable(out)
        except OSError as error:
            raise _not_written(out, error) from None


def _not_written(out: Path, error: OSError) -> UserError:
    """The error of a file that cannot be written, with the path that the user typed."""
    return UserError(f"out={out}: cannot be written ({error.strerror}); name another file")


def _device(run: Run) -> str:
    there = torch.cuda.is_available()
    if run.accelerator == "gpu" and not there:
        raise UserError("accelerator=gpu: no GPU found; use auto or cpu")
    return "cuda" if run.accelerator in ("auto", "gpu") and there else "cpu"


def _read(file: str, preprocess: Preprocess) -> tuple[Tensor, tuple[int, int]] | DataError:
    """A photograph's pixels and its size, or the reason why it cannot be read."""
    try:
        image = read_image(Path(file))
        return preprocess.pixels(image), image.size
    except DataError as error:
        return error


if __name__ == "__main__":
    main()
