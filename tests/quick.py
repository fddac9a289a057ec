"""Helpers for the tests of hbo.kernels.norm and hbo.kernels.depthwise: which quick paths a result used, and
modules without them.
"""

import copy
from collections import Counter

from torch import Tensor, nn

from hbo.bench.train import QUICK, use_pytorchs_own


def taken(out: Tensor) -> dict[str, int]:
    """Quick path -> how often it occurs in the autograd graph of `out`."""
    nodes, seen, found = [out.grad_fn], set(), Counter()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() in ("_NormaliseBackward", "_Depthwise5Backward"):
            found[node.name().removesuffix("Backward")] += 1
        nodes += [following for following, _ in node.next_functions]
    return dict(found)


def plain(module: nn.Module) -> nn.Module:
    """A copy that uses PyTorch's own modules."""
    module = copy.deepcopy(module)
    use_pytorchs_own(module, list(QUICK))
    return module
