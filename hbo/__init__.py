"""HBO: ablations of HBONet's harmonious bottleneck (ICCV 2019) in PyTorch Lightning.

The Python interface is `hbo.build`, `hbo.load`, `hbo.load_released`, `hbo.train` and `hbo.macs`; see
hbo/api.py. They are imported on first use, so that `import hbo` takes no time.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hbo.api import build, load, load_released, macs, train

if sys.argv[:1] == ["-m"]:  # Python is looking for `python -m hbo.COMMAND`, whose imports take seconds
    from hbo.errors import leave

    sys.excepthook = leave

__version__ = "1.0.0"
__all__ = ["build", "load", "load_released", "macs", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from hbo import api

        return getattr(api, name)
    raise AttributeError(f"module 'hbo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
