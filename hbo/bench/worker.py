"""A process that converts networks for the runtimes of its environment and times them on request.

Runtimes' pins conflict, so they have environments of their own (`make runtimes`). `hbo.bench infer`
starts one such process in each and asks them in turns. A line of JSON in, a line of JSON out.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hbo.deploy import runtimes
from hbo.errors import UserError, flat

ROOT = Path(__file__).parents[2]
FORMS = ("plain", "deployed", "int8")


class Worker:
    """One environment's process, seen from `hbo.bench infer`."""

    def __init__(self, python: Path | str, names: list[str]) -> None:
        self.names = names
        own = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": own, "OMP_NUM_THREADS": "1"}
        self.said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # for as long as the process lives
        self.process = subprocess.Popen(
            [str(python), "-c", "from hbo.bench.worker import main; main()", *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            env=environment,
        )

    def ask(self, **what: Any) -> Any:
        """The answer to a command.

        Raises:
            UserError: the process could not obey, or ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:  # it ended before it could be asked
            line = ""
        answer = json.loads(line) if line else {"error": f"{', '.join(self.names)}: {self._how_it_ended()}"}
        if "error" in answer:
            raise UserError(answer["error"])
        return answer["answer"]

    def _how_it_ended(self) -> str:
        """Its exit status, and the last line that it wrote to standard error."""
        status = self.process.wait()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        self.said.seek(0)
        lines = [line for line in self.said.read().splitlines() if line.strip()]
        return f"its process ended with {how}" + (f" ({flat(lines[-1])})" if lines else "")

    def milliseconds(self, name: str, images: int) -> float:
        """Milliseconds per image, the mean over some in a row."""
        return self.ask(do="time", name=name, images=images)

    def stop(self) -> None:
        """End the process."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.process.wait()
        self.said.close()


def converted(workers: list[Worker], **command: Any) -> dict[str, Any]:
    """Have every runtime convert the networks, and name the files that fail; they are not timed.

    Returns:
        `runtime:form` -> bytes, pieces, worst difference, or `failed`; runtime -> versions.

    Raises:
        UserError: all files failed, or a process could not obey.
    """
    made: dict[str, Any] = {}
    for worker in tqdm(workers, desc="convert", leave=False):
        made |= worker.ask(**command)
    files = {name: facts for name, facts in made.items() if ":" in name}
    failed = {name: facts["failed"] for name, facts in files.items() if "failed" in facts}
    said = [f"{name}: {why}; not timed" for name, why in failed.items()]
    if files and len(failed) == len(files):
        raise UserError("\n".join(said))
    for line in said:
        print(line, file=sys.stderr)
    return made


def environments() -> dict[str, list[str]]:
    """Python of an environment -> the runtimes to be timed in it: this one, then `.venv-NAME` beside the
    checkout's own.

    ONNX Runtime is timed in the process of `hbo.bench infer` itself.
    """
    found: dict[str, list[str]] = {}
    here = [runtime.name for runtime in runtimes.installed() if runtime.name != "onnx"]
    if here:
        found[sys.executable] = here
    for name in runtimes.RUNTIMES:
        python = ROOT / f".venv-{name}" / "bin" / "python"
        if name not in here and name != "onnx" and python.exists():
            found.setdefault(str(python), []).append(name)
    return found


class Timed:
    """What the process holds: files and open sessions, by `runtime:form` or `runtime:NETWORK_form`."""

    def __init__(self, names: list[str]) -> None:
        self.runtimes = {name: runtimes.named(name) for name in names}
        self.models: dict[str, Any] = {}
        self.sessions: dict[str, Any] = {}
        self.images: dict[str, Any] = {}

    def make(self, run: dict[str, Any], rival: dict[str, Any] | None, seed: int) -> dict[str, Any]:
        """Convert; name -> bytes, pieces, worst difference, or `failed`: why there is none."""
        import torch

        from hbo import config
        from hbo.tasks import build

        torch.set_num_threads(1)
        torch.manual_seed(seed)
        nets = {"": build.network(config.resolve(**run), 1000).eval()}
        if rival:
            nets["mobilenetv2_"] = build.network(config.resolve(**rival), 1000).eval()
        side = run["resolution"]
        image, some = torch.randn(1, 3, side, side), torch.randn(8, 3, side, side).numpy()
        answer = {}
        for runtime in self.runtimes.values():
            runtime.require()
            for prefix, net in nets.items():
                with torch.inference_mode():
                    expected = net(image).numpy()
                for form in FORMS:
                    if form == "int8" and not runtime.int8:
                        continue
                    name = f"{runtime.name}:{prefix}{form}"
                    of = name, runtime, form, net, image.numpy(), some
                    answer[name] = self._or_failed(answer, self._compared, *of, expected)
            answer[runtime.name] = runtime.versions()
        return answer

    def take(self, checkpoints: list[str]) -> dict[str, Any]:
        """Convert trained networks, named by their place in the list; for each file also its top-1 on the
        validation images.
        """
        import torch

        from hbo import export
        from hbo.exporting import check
        from hbo.runs import checkpoint

        torch.set_num_threads(1)
        answer: dict[str, Any] = {}
        for place, path in enumerate(checkpoints):
            trained = checkpoint.trained(Path(path), {"threads": 1})
            task = export.restored(trained)
            data, _ = export.images(trained, needed=True, asked=False)
            seen = check.normalised(task, export.seen_in_training(data.train, export.CALIBRATION, task.run))
            for runtime in self.runtimes.values():
                runtime.require()
                for form in FORMS:
                    if form == "int8" and not runtime.int8:
                        continue
                    name = f"{runtime.name}:{place}:{form}"
                    of = name, runtime, form, task.net, seen[:1], seen
                    answer[name] = self._or_failed(answer, self._evaluated, *of, task, data)
        return answer | {name: runtime.versions() for name, runtime in self.runtimes.items()}

    def _compared(self, *of: Any) -> dict[str, Any]:
        """A file's facts, with its difference from the logits of an image."""
        *file, expected = of
        session, found = self._converted(*file)
        image = file[4]
        off = abs(session(image) - expected).max() / abs(expected).max()
        return found | {"difference": float(off)}

    def _evaluated(self, *of: Any) -> dict[str, Any]:
        """A file's facts, with its difference and its top-1 on the validation images."""
        from hbo.exporting import check

        *file, task, data = of
        session, found = self._converted(*file)
        return found | {
            "difference": max(check.distances(session, task, data).values()),
            "top1": check.evaluate(session, task, data.val)["top1"],
        }

    def _or_failed(
        self, made: dict[str, Any], facts: Callable[..., dict[str, Any]], name: str, *about: Any
    ) -> dict[str, Any]:
        """A file's facts, or why it is not timed: no conversion, a float file with other logits, or an int8
        file of a network whose float file, among those `made` before, failed.
        """
        from hbo.exporting import check

        if name.endswith("int8") and (why := made[f"{name.removesuffix('int8')}deployed"].get("failed")):
            return {"failed": f"its float file failed: {why}"}
        try:
            found = facts(name, *about)
        except Exception as error:  # whatever a converter raises
            found = {"failed": f"{type(error).__name__}: {flat(str(error))}"}
        else:
            if not name.endswith("int8") and not found["difference"] <= check.TOLERANCE:
                found["failed"] = f"its logits differ by {found['difference']:.1e} of the largest"
        if "failed" in found:
            self.models.pop(name, None)
        return found

    def _converted(
        self, name: str, runtime: Any, form: str, net: Any, image: Any, some: Any
    ) -> tuple[Any, dict[str, Any]]:
        """A network's file, held under this name, opened with one thread; its bytes and pieces."""
        from hbo.deploy import deploy

        ready = net if form == "plain" else deploy(net, runtime.target)
        make = partial(runtime.quantize, images=some) if form == "int8" else runtime.convert
        self.models[name], self.images[name] = make(ready, image.shape[-1]), image
        files, pieces = self.models[name]
        return runtime.open(files, 1), {
            "bytes": sum(map(len, files.values())),
            "pieces": pieces and pieces._asdict(),
        }

    def open(self, threads: int) -> list[str]:
        """Open all with this many threads."""
        self.sessions = {
            name: self.runtimes[name.split(":")[0]].open(model.files, threads)
            for name, model in self.models.items()
        }
        return list(self.sessions)

    def time(self, name: str, images: int) -> float:
        """Milliseconds per image."""
        session, image = self.sessions[name], self.images[name]
        start = time.perf_counter()
        for _ in range(images):
            session(image)
        return 1000 * (time.perf_counter() - start) / images


def main() -> None:
    """Obey lines of JSON until there are none."""
    answers = os.fdopen(os.dup(1), "w")  # converters print to standard output
    os.dup2(2, 1)
    held = Timed(sys.argv[1:])
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer: dict[str, Any] = {"answer": getattr(held, command.pop("do"))(**command)}
        except Exception as error:  # whatever a converter raises: the bench names it
            answer = {"error": f"{', '.join(held.runtimes)}: {type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
