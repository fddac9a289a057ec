"""python -m hbo.delegation: which upsamplings ExecuTorch hands to XNNPACK, a mode a line.

    python -m hbo.delegation --json

Each deployed network (`hbo.deploy`; width 0.25, divisor 8, k = 1, 64 x 64) is lowered; what the delegate does not take runs in
ExecuTorch's portable kernels, a map copied out of the delegate and back for each piece.
"""

import contextlib
import io
import json
import re
import typing
import warnings
from collections import Counter
from importlib.metadata import version
from typing import Any

import torch
from tqdm import tqdm

from hbo.block import Block
from hbo.errors import UserError, one_line
from hbo.nets import build
from hbo.text import aligned
from hbo.words import Parser

RESOLUTION = 64


def main(argv: list[str] | None = None) -> None:
    """The command line: `--json` or a table."""
    parser = Parser(prog="python -m hbo.delegation", description="Which upsamplings ExecuTorch hands to XNNPACK.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    args = parser.parse_args(argv)
    with one_line():
        found = table()
    if args.json:
        print(json.dumps(found, indent=1))
        return
    print(f"executorch {found['executorch']}, torch {found['torch']}\n")
    lines = [("upsample", "pieces", "delegated", "left", "operators left")]
    for mode, line in found["upsample"].items():
        left = ", ".join(f"{name} x{n}" for name, n in line["left"].items())
        lines.append((mode, str(line["pieces"]), str(line["delegated"]), str(sum(line["left"].values())), left))
    print(*aligned(lines, right=(1, 2, 3)), sep="\n")


def table() -> dict[str, Any]:
    """Upsampling -> pieces that the delegate got, operators in them, and those left, by name.

    Raises:
        UserError: ExecuTorch is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, of its own and of torch's parts
        try:
            import executorch.exir  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(f"delegation: {error.name} is not installed; pip install -e '.[executorch]'") from None
        modes = typing.get_args(typing.get_type_hints(Block)["upsample"])
        lines = {mode: delegated(mode) for mode in tqdm(modes, leave=False)}
    return {"executorch": version("executorch"), "torch": version("torch"), "upsample": lines}


def delegated(mode: str) -> dict[str, Any]:
    """What XNNPACK takes of the deployed network with one mode of upsampling."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # pyright: ignore[reportMissingImports]
        XnnpackPartitioner,
    )
    from executorch.devtools.backend_debug import get_delegation_info  # pyright: ignore[reportMissingImports]
    from executorch.exir import to_edge_transform_and_lower  # pyright: ignore[reportMissingImports]

    from hbo.deploy import deploy

    net = deploy(build("hbonet", Block(upsample=mode), 0.25, 8, 10))  # pyright: ignore[reportArgumentType]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        program = torch.export.export(net, (torch.zeros(1, 3, RESOLUTION, RESOLUTION),))
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    module = lowered.exported_program().graph_module
    info = get_delegation_info(module)
    calls = [str(node.target) for node in module.graph.nodes if node.op == "call_function"]
    left = Counter(found[1] for call in calls if (found := re.search(r"aten\.(\w+)", call)))
    return {
        "pieces": info.num_delegated_subgraphs,
        "delegated": info.num_delegated_nodes,
        "left": dict(sorted(left.items())),
    }


if __name__ == "__main__":
    main()
