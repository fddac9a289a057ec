"""The interface of a runtime's adapter: `hbo.export`, its check and `hbo.bench infer` know no runtime by
name.

A new runtime is a file `for_NAME.py` beside this one with a `RUNTIME`, and its name in
`hbo.deploy.runtimes.RUNTIMES`.
"""

import contextlib
import importlib
import importlib.util
import io
import logging
import os
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from hbo.errors import UserError

Files = dict[str, bytes]  # suffix -> content; the first one is the file that people name
Session = Callable[[Any], Any]  # images (N, 3, R, R), float32, normalised -> logits (N, classes), float32
Facts = dict[str, str]  # metadata: name -> JSON
Event = tuple[str, list[float]]  # an operator's kind; its microseconds, an image after another
INPUT, OUTPUT = "image", "logits"


class Pieces(NamedTuple):
    """How much of a network a runtime's fast backend runs."""

    delegated: int | None  # operators in it, where the runtime says so
    pieces: int  # between two of them a map is copied out and back in
    left: dict[str, int]  # operators outside, by name


class Model(NamedTuple):
    """A converted network."""

    files: Files
    pieces: Pieces | None = None


class Traced(NamedTuple):
    """A session on one thread that times each operator."""

    run: Callable[[np.ndarray], object]  # one image, (1, 3, R, R)
    events: Callable[[], list[Event]]  # one for each operator, once all images have run


class Runtime(ABC):
    """One runtime: float file, int8 file, session."""

    name = ""
    title = ""
    suffix = ""  # of the file that people name
    beside: tuple[str, ...] = ()  # of those that it cannot be read without
    packages: tuple[str, ...] = ()  # that convert and run, by their names on the index
    modules: tuple[str, ...] = ()  # that have to be importable for it
    tools: tuple[str, ...] = ()  # those that only `quantize` needs
    target = "onnx"  # how `hbo.deploy` rewrites the network for it
    int8 = ""  # how int8 is made; empty: it is left out
    no_int8 = ""  # and why
    any_batch = False  # a file takes any number of images at once
    input_name: str | None = INPUT  # in the file; None: its inputs have no names
    int8_type = "float32"  # of an int8 file's input

    @property
    def extra(self) -> str:
        """The extra of pyproject.toml that installs it."""
        return self.name

    @property
    def remedy(self) -> str:
        """What to type where it is not installed."""
        return f"pip install -e '.[{self.extra}]'"

    def require(self, int8: bool = False) -> None:
        """Check that the runtime is installed.

        Raises:
            UserError: names the missing package and the extra; or int8 is asked for, and the runtime has none
                here.
        """
        if int8 and not self.int8:
            raise UserError(f"int8: not made for {self.title}: {self.no_int8}")
        with quiet():
            for module in self.modules + (self.tools if int8 else ()):
                try:
                    importlib.import_module(module)
                except ImportError as error:
                    missing = (error.name or module).split(".")[0]
                    raise UserError(f"{self.title}: {missing} is not installed; {self.remedy}") from None

    def installed(self) -> bool:
        """Whether it can be used here, without loading it."""
        return all(importlib.util.find_spec(module.split(".")[0]) is not None for module in self.modules)

    def takes(self, resolution: int, int8: bool = False) -> dict[str, Any]:
        """Name, shape and type of a file's input."""
        return {
            "name": self.input_name,
            "shape": ["batch" if self.any_batch else 1, 3, resolution, resolution],
            "type": self.int8_type if int8 else "float32",
        }

    def versions(self) -> dict[str, str]:
        """Versions of the packages that make and run the files."""
        found = {}
        for name in ("torch", *self.packages):
            with contextlib.suppress(PackageNotFoundError):
                found[name] = version(name)
        return found

    @abstractmethod
    def convert(self, net: nn.Module, resolution: int, facts: Facts | None = None) -> Model:
        """A network in evaluation mode, (B, 3, R, R) -> (B, classes), as this runtime's file.

        Args:
            net: as `hbo.deploy` rewrites it for `target`, or as it is.
            resolution: R.
            facts: metadata for the file, if its format can store it.
        """

    def quantize(
        self, net: nn.Module, resolution: int, images: np.ndarray, facts: Facts | None = None
    ) -> Model:
        """The same with 8-bit weights and activations, whose ranges come from `images` (N, 3, R, R),
        normalised.
        """
        raise NotImplementedError

    @abstractmethod
    def open(self, files: Files, threads: int) -> Session:
        """The network of the files, in the runtime itself, on the CPU with this many threads."""

    def traced(self, files: Files) -> Traced:
        """The network of the files with the runtime's own clock at each operator.

        Raises:
            UserError: this project has no tracer for the runtime.
        """
        raise UserError(f"to={self.name}: {self.title}'s operators are not traced here")

    def facts(self, files: Files) -> Facts:
        """The files' metadata; empty if the format cannot store any."""
        return {}


def one_by_one(run: Callable[[np.ndarray], np.ndarray]) -> Session:
    """A session for any batch, from one for a single image (1, 3, R, R)."""

    def all_of_them(images: Any) -> np.ndarray:
        images = np.ascontiguousarray(images, dtype=np.float32)
        return np.concatenate([run(images[i : i + 1]) for i in range(len(images))])

    return all_of_them


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what converters print and warn about, in Python and C++: their own parts, and advice for their
    developers.
    """
    before = logging.root.manager.disable
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    logging.disable(logging.WARNING)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        for there, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, there)
            os.close(descriptor)
        os.close(nowhere)
