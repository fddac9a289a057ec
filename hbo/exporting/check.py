"""Whether a file, run in its own runtime, gives the module's logits; and its accuracy on the reported
images.
"""

from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hbo.data.sampling import EvalBatches, loader
from hbo.deploy.runtimes import Session
from hbo.errors import UserError

TOLERANCE = 1e-4  # of the largest logit
VARYING = 1e-2  # of the largest part of a logit that varies between images
LEAST = 1e-4  # of the largest logit: less variation between images is no more than rounding
REAL = 32  # reported images on which the file is compared with the module
WRITTEN = "nothing was written"


def compared(session: Session, task: Any, data: Any, deployed: bool = False) -> dict[str, float]:
    """`distances` of a file in single precision, within the limits.

    Args:
        session: the file, opened.
        task: the module.
        data: its data set, or None.
        deployed: whether the file's network was made by `hbo.deploy`.

    Raises:
        UserError: further than `TOLERANCE` or `VARYING`, not finite, or the module's logits do not depend on
            the image.
    """
    off = distances(session, task, data)
    remedy = "; --plain exports the network unchanged" * deployed
    for kind, error in off.items():
        allowed = VARYING if "varies" in kind else TOLERANCE
        if not error <= allowed:  # NaN is not
            raise UserError(
                f"export: logits for {kind}, are {error:.1e} of the largest from the module's;"
                f" {WRITTEN}{remedy}"
            )
    return off


def distances(session: Session, task: Any, data: Any) -> dict[str, float]:
    """Kind of images -> the largest difference between the file's and the module's logits, relative to the
    largest.

    For the real images also that of the part that varies between them, relative to the largest such part:
    else a file with the same logits for every image would pass if the network's hardly depend on the image.
    Without real images, the same for `patterns`.

    Raises:
        UserError: the module's logits are not finite, or do not depend on the image.
    """
    side = task.run.resolution
    some = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8)
    off = {"random, batch of 3": difference(session, task, some)}
    kind, n = ("patterns", REAL) if data is None else ("real", min(REAL, len(data.val)))
    seen = patterns(n, side) if data is None else torch.stack([data.val[0, i][0] for i in range(n)])
    off[f"{kind}, {n} images"], off[f"{kind}, what varies"] = differences(session, task, seen)
    return off


def patterns(n: int, side: int) -> Any:
    """Smooth random images, uint8 (n, 3, side, side): images of noise are so alike that their logits are,
    too.
    """
    coarse = 255 * torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear").to(torch.uint8)


def difference(session: Session, task: Any, images: Any) -> float:
    """The largest difference between the file's logits and the task's, over the task's largest.

    Raises:
        UserError: the task's own are not finite.
    """
    expected, found = _both(session, task, images)
    return float(abs(found - expected).max() / (abs(expected).max() or 1.0))


def differences(session: Session, task: Any, images: Any) -> tuple[float, float]:
    """The same, and that of the part of each logit that varies between the images, over the largest such
    part; 0 for a single image.

    Raises:
        UserError: the task's own logits are not finite, or hardly depend on the image.
    """
    expected, found = _both(session, task, images)
    largest = abs(expected).max() or 1.0
    whole = float(abs(found - expected).max() / largest)
    if len(images) < 2:
        return whole, 0.0
    varying = expected - expected.mean(0)
    share = float(abs(varying).max() / largest)
    if share < LEAST:
        raise UserError(
            f"export: the checkpoint's logits vary by {share:.0e} of the largest between {len(images)}"
            " images, as much as"
            f" rounding does, so no file can be compared with it; train it longer; {WRITTEN}"
        )
    return whole, float(abs(found - found.mean(0) - varying).max() / abs(varying).max())


def _both(session: Session, task: Any, images: Any) -> tuple[Any, Any]:
    with torch.inference_mode():
        expected = task(images).numpy()
    if not np.isfinite(expected).all():
        raise UserError(f"export: the checkpoint's own logits are not finite, so it is of no use; {WRITTEN}")
    return expected, session(normalised(task, images))


def normalised(task: Any, images: Any) -> Any:
    """Uint8 images as the network's input, float32 (N, 3, R, R)."""
    return ((images.to(task.mean.dtype) - task.mean) / task.std).numpy()


def evaluate(session: Session, task: Any, images: Any) -> dict[str, float]:
    """Metrics of a file on the run's reported images, as `hbo.evaluate` computes them.

    Raises:
        UserError: its logits are not finite.
    """
    from hbo.metrics import Outcomes, classification
    from hbo.tasks.base import lost

    run, outcomes = task.run, Outcomes(task.num_classes)
    batches = EvalBatches(len(images), run.batch, limit=run.limit_batches)
    for batch, labels, index in tqdm(loader(images, batches, 0), "evaluate", unit="batch", leave=False):
        outcomes.update(torch.from_numpy(session(normalised(task, batch))), labels, index)
    found = outcomes.compute()
    metrics = classification(found, task.num_classes)
    if why := lost(metrics, task.finite):
        raise UserError(
            f"export: {why} on the validation images, the file's logits are not finite; {WRITTEN}"
        )
    return {"images": len(found["index"]), **metrics}
