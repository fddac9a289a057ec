"""One image at a time in ONNX Runtime: the timing, and the check of a deployed network's logits."""

import time
from typing import Any

from hbo.deploy.runtimes import for_onnx as onnx
from hbo.errors import UserError
from hbo.exporting import check

TURNS, IMAGES = 15, 20  # turns measured, after one of warm-up; images a turn
THREADS = (1, 2)


def check_same(plain: Any, deployed: Any, image: Any, name: str) -> None:
    """Refuse to time a deployed network whose logits for `image` differ from its plain export's.

    Args:
        plain: ONNX model in memory.
        deployed: another.
        image: (1, 3, R, R).
        name: of the deployed one, for the error.

    Raises:
        UserError: the logits differ by more than `hbo.check.TOLERANCE` of the largest.
    """
    sessions = [onnx.open_session(model.SerializeToString(), 1) for model in (plain, deployed)]
    expected, found = (
        session.run(None, {session.get_inputs()[0].name: image.numpy()})[0] for session in sessions
    )
    off = float(abs(found - expected).max() / abs(expected).max())
    if not off <= check.TOLERANCE:
        raise UserError(
            f"{name}: its logits differ from the plain export's by {off:.1e} of the largest; nothing was"
            " timed"
        )


def milliseconds(session: Any, image: Any, images: int = IMAGES) -> float:
    """Milliseconds per image in a session with one input, the mean over some in a row."""
    name = session.get_inputs()[0].name
    start = time.perf_counter()
    for _ in range(images):
        session.run(None, {name: image})
    return 1000 * (time.perf_counter() - start) / images
