"""ExecuTorch with its XNNPACK delegate: `.pte`, for phones' and boards' processors.

Operators that the delegate does not take run in ExecuTorch's portable kernels; for each piece a map is copied
out of the delegate and back.
"""

import copy
import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hbo.deploy.runtimes.base import (
    Event,
    Facts,
    Files,
    Model,
    Pieces,
    Runtime,
    Session,
    Traced,
    one_by_one,
    quiet,
)
from hbo.errors import UserError

FACTS = "hbo"  # a method of the program that returns the facts, as JSON


class ExecuTorch(Runtime):
    """One image at a time. Its threads are those of the process: the last `open` says how many."""

    name, title, target = "executorch", "ExecuTorch (XNNPACK)", "executorch"
    suffix = ".pte"
    input_name = None
    packages = ("executorch", "torchao")
    modules = ("executorch.exir",)
    int8 = "PT2E with XNNPACK's quantizer: symmetric weights with a scale for each output channel"

    def convert(self, net: nn.Module, resolution: int, facts: Facts | None = None) -> Model:
        with quiet():
            return _lowered(
                torch.export.export(_standard(net), (torch.zeros(1, 3, resolution, resolution),)), facts
            )

    def quantize(
        self, net: nn.Module, resolution: int, images: np.ndarray, facts: Facts | None = None
    ) -> Model:
        with quiet():
            from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (  # pyright: ignore
                XNNPACKQuantizer,
                get_symmetric_quantization_config,
            )
            from torchao.quantization.pt2e.quantize_pt2e import (  # pyright: ignore
                convert_pt2e,
                prepare_pt2e,
            )

            image = (torch.zeros(1, 3, resolution, resolution),)
            quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
            prepared = prepare_pt2e(torch.export.export(_standard(net), image).module(), quantizer)
            with torch.no_grad():
                for one in torch.from_numpy(images).split(1):
                    prepared(one)
            return _lowered(torch.export.export(convert_pt2e(prepared), image), facts)

    def facts(self, files: Files) -> Facts:
        program = _load(files)
        return json.loads(program.load_method(FACTS).execute([])[0]) if FACTS in program.method_names else {}

    def open(self, files: Files, threads: int) -> Session:
        program = _load(files, threads)
        held = (files[".pte"], program, program.load_method("forward"))  # the last reads from the others

        def run(image: np.ndarray) -> np.ndarray:
            return held[-1].execute([torch.from_numpy(image)])[0].numpy().copy()

        return one_by_one(run)

    def traced(self, files: Files) -> Traced:
        """Operators inside the delegate.

        Raises:
            UserError: ExecuTorch was built without its event tracer.
        """
        with quiet():
            program = _load(files, 1, enable_etdump=True, debug_buffer_size=0)
        held = (files[".pte"], program, program.load_method("forward"))
        return Traced(lambda image: held[-1].execute([torch.from_numpy(image)]), lambda: _events(held[1]))


RUNTIME = ExecuTorch()


def _standard(net: nn.Module) -> nn.Module:
    """A copy with weights in (O, I, H, W) order: ExecuTorch takes none in channels-last order."""
    return copy.deepcopy(net).to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]


def _load(files: Files, threads: int | None = None, **how: Any) -> Any:
    """The program, with the process's threads set to this number."""
    with quiet():
        from executorch.extension.pybindings.portable_lib import (  # pyright: ignore
            _unsafe_reset_threadpool,
        )
        from executorch.runtime import Runtime as Loader  # pyright: ignore
    if threads is not None:
        _unsafe_reset_threadpool(threads)
    return Loader.get().load_program(files[".pte"], **how)


def _lowered(program: Any, facts: Facts | None) -> Model:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # pyright: ignore
        XnnpackPartitioner,
    )
    from executorch.exir import to_edge_transform_and_lower  # pyright: ignore

    methods = {"constant_methods": {FACTS: json.dumps(facts)}} if facts else {}
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], **methods)
    pieces = _pieces(lowered.exported_program().graph_module)
    return Model({".pte": bytes(lowered.to_executorch().buffer)}, pieces)


def _events(program: Any) -> list[Event]:
    with quiet():
        from executorch.devtools import Inspector  # pyright: ignore
        from executorch.devtools.inspector import TimeScale  # pyright: ignore

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.etdp"
            program.write_etdump_result_to_file(str(path), str(Path(folder) / "outputs"))
            if not path.exists():
                raise UserError("to=executorch: this ExecuTorch was built without its event tracer")
            inspected = Inspector(
                etdump_path=str(path), source_time_scale=TimeScale.NS, target_time_scale=TimeScale.US
            )
    events = [event for block in inspected.event_blocks if block.name == "Execute" for event in block.events]
    # Convolution (NHWC, F32) DWConv #12
    return [
        (re.sub(r" \([^)]*\)| #\d+$", "", event.name), event.perf_data.raw)
        for event in events
        if event.is_delegated_op
    ]


def _pieces(module: Any) -> Pieces:
    """What XNNPACK takes of a lowered program."""
    from executorch.devtools.backend_debug import get_delegation_info  # pyright: ignore

    info = get_delegation_info(module)
    calls = [str(node.target) for node in module.graph.nodes if node.op == "call_function"]
    left = Counter(found[1] for call in calls if (found := re.search(r"aten\.(\w+)", call)))
    return Pieces(info.num_delegated_nodes, info.num_delegated_subgraphs, dict(sorted(left.items())))
