"""A trained detector on one photograph: boxes, latency and a picture (`python -m hbo.evaluate --image`)."""

import statistics
import sys
import time
from pathlib import Path

import torch
from torchvision.transforms import v2

from hbo import headers
from hbo.data import audit
from hbo.data.sources import read_image
from hbo.errors import UserError, check_picture
from hbo.runs.checkpoint import Trained
from hbo.tasks.detect.draw import one
from hbo.tasks.detect.module import Detect

REPEATS = 9  # timed passes, after two for warm-up


def on_image(trained: Trained, image: Path, out: Path, score: float) -> list[str]:
    """Detect, draw the picture, and list the detections.

    Args:
        trained: a checkpoint of ours.
        image: a photograph.
        out: the picture's file.
        score: minimum score of a detection.

    Returns:
        Lines: one per detection, highest score first, boxes in the photograph's pixels; then the latency.

    Raises:
        UserError: the checkpoint is not a detector, or its outputs are not finite;
        the photograph cannot be read.
    """
    run, classes = trained.run, trained.content.get("classes")
    if run.task != "detect" or classes is None:
        raise UserError(f"image: needs a detector; this checkpoint was trained with task={run.task}")
    check_picture(out, "out")
    if not image.is_file():
        raise UserError(f"image={image}: no such file")
    torch.set_num_threads(run.threads)
    task = Detect(run, classes)
    trained.load_into(task)
    device = "cuda" if run.accelerator in ("auto", "gpu") and torch.cuda.is_available() else "cpu"
    task = task.to(device).eval()
    photograph = read_image(image)
    for line in audit.exif({str(image): headers.header_of(image)})[1]:
        print(f"warning: {line}", file=sys.stderr)
    resized = v2.functional.resize(
        v2.functional.pil_to_tensor(photograph), [run.resolution] * 2, antialias=True
    )
    seconds, found = [], dict[str, torch.Tensor]()
    with torch.inference_mode():
        for _ in range(2 + REPEATS):
            start = time.perf_counter()
            logits, offsets = task(resized[None].to(device))
            if not (logits.isfinite().all() and offsets.isfinite().all()):
                raise UserError(
                    f"image={image}: the network's outputs are not finite; use another checkpoint"
                )
            found = task.detector.detections(logits, offsets)[0]
            found = {name: values.cpu() for name, values in found.items()}
            seconds.append(time.perf_counter() - start)
    likely = found["scores"] >= score
    found = {name: values[likely] for name, values in found.items()}
    found["boxes"] = found["boxes"] * (torch.tensor([*photograph.size, *photograph.size]) / run.resolution)
    one(photograph, found, classes, image.name).savefig(out, dpi=150)
    pairs = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
    lines = [
        f"{classes[label]:<14} {s:.3f}  " + " ".join(f"{corner:7.1f}" for corner in box)
        for label, s, box in pairs
    ]
    times = sorted(1000 * s for s in seconds[2:])
    said = (
        f"{statistics.median(times):.1f} ms ({times[0]:.1f} to {times[-1]:.1f}, {REPEATS} passes, float32,"
        f" {run.threads} threads)"
    )
    return [
        *lines,
        f"{len(lines)} detections of at least {score:g}; network, decoding and NMS on {device}: {said};"
        f" {out}",
    ]
