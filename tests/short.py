"""Networks of three blocks, for tests of what surrounds a network: a run, its files, a converter.

An update takes about a third of the whole network's time. `install` gives them to processes that the tests start, the
fixture `short` (conftest.py) to a test's own process, too. Tests of a network
itself (its costs, shapes and weights) use the whole one.
"""

import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

VARIABLE = "HBO_TESTS_SHORT"


def shortened(tables: ModuleType) -> dict[str, Any]:
    """HBONet with two bottlenecks, of strides 2 and 1, and an inverted residual; MobileNetV2 likewise."""
    found = {}
    for net, first in (("hbonet", 2), ("mobilenetv2", 1)):
        table = tables.TABLES[net]
        stages = (table.stages[first]._replace(repeats=2), table.stages[-1])
        found[net] = table._replace(stages=stages, head=160)
    return found


class _Finder:
    """Changes `hbo.nets.tables` as it is imported, and nothing earlier."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        if name != "hbo.nets.tables":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        loader: Any = spec.loader
        executed = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            executed(module)
            vars(module)["TABLES"].update(shortened(module))

        loader.exec_module = exec_module
        return spec


def install() -> None:
    """Let this process import short networks, if its environment asks for them."""
    # A fork has its parent's.
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
    if os.environ.get(VARIABLE):
        sys.meta_path.insert(0, _Finder())
