"""OpenVINO: `.xml` and `.bin`, for Intel's processors, and ARM's."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hbo.deploy.runtimes.base import INPUT, OUTPUT, Facts, Files, Model, Runtime, Session, Traced, quiet


class OpenVINO(Runtime):
    """Any batch, each size compiled for itself; computed in float32 whatever the processor prefers."""

    name, title, target = "openvino", "OpenVINO", "openvino"
    suffix = ".xml"
    beside = (".bin",)
    packages = ("openvino", "nncf")
    modules, tools = ("openvino",), ("nncf",)
    int8 = (
        "NNCF after training: symmetric weights, of 7 bits where 8 overflow without VNNI, with a scale for"
        " each output channel, activations by the widest range seen"
    )
    any_batch = True

    def convert(self, net: nn.Module, resolution: int, facts: Facts | None = None) -> Model:
        return _saved(_model(net, resolution), facts)

    def quantize(
        self, net: nn.Module, resolution: int, images: np.ndarray, facts: Facts | None = None
    ) -> Model:
        _core()  # before NNCF's own
        with quiet():
            import nncf  # pyright: ignore[reportMissingImports]
            from nncf.quantization.range_estimator import (  # pyright: ignore[reportMissingImports]
                RangeEstimatorParametersSet,
            )

            data = nncf.Dataset([image[None] for image in images])
            # The widest range seen: NNCF's own is the mean over images, which cuts off what lies beyond and
            # cost points of accuracy.
            # Upsampling stays in single precision, where it takes about half the time.
            # Weights of 7 bits in all layers but depthwise ones: processors without VNNI add two products in
            # 16 bits, which overflow with 8 bits, and the file would give worse answers there.
            how = nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE,
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            )
            model = nncf.quantize(
                _model(net, resolution),
                data,
                subset_size=len(images),
                ignored_scope=nncf.IgnoredScope(types=["Interpolate"], validate=False),
                advanced_parameters=how,
            )
        return _saved(model, facts)

    def facts(self, files: Files) -> Facts:
        model = _read(files)
        if not model.has_rt_info(["hbo"]):
            return {}
        return {key: value.astype(str) for key, value in model.get_rt_info(["hbo"]).astype(dict).items()}

    def open(self, files: Files, threads: int) -> Session:
        requests: dict[int, Any] = {}

        def run(images: np.ndarray) -> np.ndarray:
            images = np.asarray(images, dtype=np.float32)
            if len(images) not in requests:
                requests[len(images)] = _request(files, threads, len(images))
            return requests[len(images)].infer([images], share_inputs=True)[0].copy()

        return run

    def traced(self, files: Files) -> Traced:
        request = _request(files, 1, profiled=True)
        times: dict[str, tuple[str, list[float]]] = {}
        shapes = {
            node.get_friendly_name(): tuple(node.input(1).get_shape())
            for node in _read(files).get_ops()
            if node.get_type_name() in CONVOLUTIONS
        }

        def run(image: np.ndarray) -> None:
            request.infer([image])
            for one in request.profiling_info:
                if one.status == one.Status.EXECUTED:
                    kind = _kind(one, shapes.get(one.node_name))
                    spent = one.real_time.total_seconds() * 1e6
                    times.setdefault(one.node_name, (kind, []))[1].append(spent)

        return Traced(run, lambda: list(times.values()))


RUNTIME = OpenVINO()
CONVOLUTIONS = ("Convolution", "GroupConvolution")


@cache
def _core() -> Any:
    """One for the whole process: each gives this thread a signal stack of its own and, when it ends, puts the
    one before it back, whether that still exists or not; then the next signal that Python handles, such as
    Ctrl-C, ends the process with SIGSEGV.
    """
    import openvino  # pyright: ignore[reportMissingImports]

    core = openvino.Core()
    core.get_versions("CPU")  # loads what sets the stack
    return core


def _request(files: Files, threads: int, batch: int = 1, profiled: bool = False) -> Any:
    """The network compiled for this batch. Compiled for any, each operator would work out its shapes again
    for each image, which takes as long as a fifth of the arithmetic.
    """
    model = _read(files)
    shape = model.inputs[0].partial_shape
    shape[0] = batch
    model.reshape(shape)
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # on a processor with bfloat16 the default is that
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "PERF_COUNT": profiled,
    }
    return _core().compile_model(model, "CPU", settings).create_infer_request()


def _kind(executed: Any, kernel: tuple[int, ...] | None) -> str:
    """What an operator is called; a convolution's kind has its kernel."""
    if kernel is None:
        return str(executed.node_type)
    depthwise = " depthwise" if executed.node_type == "GroupConvolution" and kernel[-1] > 1 else ""
    return f"Conv {'x'.join(map(str, kernel[-2:]))}{depthwise}"


def _model(net: nn.Module, resolution: int) -> Any:
    import openvino  # pyright: ignore[reportMissingImports]

    image = torch.zeros(2, 3, resolution, resolution)
    with quiet():
        program = torch.export.export(net.eval(), (image,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        model = openvino.convert_model(program)
    model.reshape([-1, 3, resolution, resolution])  # the converter leaves height and width open
    model.inputs[0].get_tensor().set_names({INPUT})
    model.outputs[0].get_tensor().set_names({OUTPUT})
    return model


def _saved(model: Any, facts: Facts | None) -> Model:
    import openvino  # pyright: ignore[reportMissingImports]

    for key, value in (facts or {}).items():
        model.set_rt_info(value, ["hbo", key])
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "net.xml"
        openvino.save_model(model, xml, compress_to_fp16=False)
        return Model({".xml": xml.read_bytes(), ".bin": xml.with_suffix(".bin").read_bytes()})


def _read(files: Files) -> Any:
    import openvino  # pyright: ignore[reportMissingImports]

    return _core().read_model(files[".xml"], openvino.Tensor(np.frombuffer(files[".bin"], dtype=np.uint8)))
