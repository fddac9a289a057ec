"""Several processes that train on one device at once: images/s of all together (`hbo.bench gpu`)."""

import time
from typing import Any, NamedTuple

import torch

from hbo.bench import turns
from hbo.errors import UserError


class Place(NamedTuple):
    """What each process trains: HBONet (k = 1) in bf16 on a GPU, fp32 on a CPU; images on the device."""

    device: str
    width: float
    batch: int
    resolution: int
    seconds: float


def places(place: Place, count: int) -> dict[str, Any]:
    """Images/s of `count` processes together, one for each of three spans of `place.seconds` in which all
    of them train.

    Raises:
        UserError: a process ended, for instance out of memory.
    """
    context = turns.processes(place.device == "cuda")
    pipes, started = [], []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            pipes.append(ours)
            started.append(context.Process(target=_train, args=(theirs, place), daemon=True))
            started[-1].start()
            theirs.close()
        for pipe in pipes:
            pipe.recv()  # ready, and warm
        rates = []
        for _ in range(3):
            begin = time.time() + 0.1
            for pipe in pipes:
                pipe.send(begin)
            rates.append(sum(pipe.recv() for pipe in pipes))
        return {"processes": count, "images_per_second": rates} | place._asdict()
    except EOFError:
        raise UserError("a process ended; see its output above") from None
    finally:
        for process in started:
            process.terminate()
            process.join()


def _train(pipe: Any, place: Place) -> None:
    """A process: trains from the given time on, and answers with its images/s."""
    from hbo import config
    from hbo.tasks.classify.module import Classify

    torch.set_num_threads(1)
    cuda = place.device == "cuda"
    run = config.resolve(data="imagenet", width=place.width, batch=place.batch)
    task = Classify(run, 10).to(place.device).train()
    size = (place.batch, 3, place.resolution, place.resolution)
    images = torch.randint(0, 256, size, dtype=torch.uint8, device=place.device)
    labels = torch.randint(0, 10, (place.batch,), device=place.device)
    optimizer = task.configure_optimizers()["optimizer"]

    def update() -> None:
        optimizer.zero_grad()
        with torch.autocast(place.device, torch.bfloat16, enabled=cuda):
            loss = task.loss(task(images), labels)
        loss.backward()
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()

    for _ in range(3):
        update()
    pipe.send(None)
    while True:
        begin = pipe.recv()
        time.sleep(max(0.0, begin - time.time()))
        count, start = 0, time.perf_counter()
        while not count or time.perf_counter() - start < place.seconds:
            update()
            count += 1
        pipe.send(count * place.batch / (time.perf_counter() - start))
