"""Duration of a run, and speed of its training."""

import time


class Clock:
    """Seconds of a run, including those before an interruption, and images per
    second of this process's training.
    """

    def __init__(self) -> None:
        self.seconds_before = 0.0
        self.started = time.monotonic()
        # Seconds between the ends of batches, and the images of those batches.
        self.busy, self.images = (
            0.0,
            0,
        )
        self.mark, self.warm = 0.0, False

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run so far."""
        return self.seconds_before + time.monotonic() - self.started

    @property
    def images_per_second(self) -> float | None:
        """Images per second; None before the second batch, as the first includes start-up."""
        return self.images / self.busy if self.busy else None

    def start_epoch(self) -> None:
        """Exclude the time until now, such as an evaluation."""
        self.mark = time.monotonic()

    def end_batch(self, images: int) -> None:
        """Count a finished batch; `images` is its size over all processes."""
        now = time.monotonic()
        if self.warm:
            self.busy, self.images = self.busy + now - self.mark, self.images + images
        self.warm, self.mark = True, now
