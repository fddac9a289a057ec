"""How long a run has taken, and how fast its training is."""

import time


class Clock:
    """Seconds of a run, those before an interruption included, and images a second of this process's training."""

    def __init__(self) -> None:
        self.seconds_before = 0.0
        self.started = time.monotonic()
        self.busy, self.images = 0.0, 0  # seconds between the ends of batches, and the images of those batches
        self.mark, self.warm = 0.0, False

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run so far."""
        return self.seconds_before + time.monotonic() - self.started

    @property
    def images_per_second(self) -> float | None:
        """None before a second batch has ended: the first pays for starting up."""
        return self.images / self.busy if self.busy else None

    def start_epoch(self) -> None:
        """What came before, such as an evaluation, is not training."""
        self.mark = time.monotonic()

    def end_batch(self, images: int) -> None:
        """Count a finished batch; `images` is its size over all processes."""
        now = time.monotonic()
        if self.warm:
            self.busy, self.images = self.busy + now - self.mark, self.images + images
        self.warm, self.mark = True, now
