"""OpenVINO: `.xml` and `.bin`, for Intel's processors, and ARM's."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hbo.deploy.runtimes.base import INPUT, OUTPUT, Facts, Files, Model, Runtime, Session, quiet


class OpenVINO(Runtime):
    """Any batch; computed in float32 whatever the processor prefers."""

    name, title, target = "openvino", "OpenVINO", "openvino"
    suffix = ".xml"
    beside = (".bin",)
    packages = ("openvino", "nncf")
    modules, tools = ("openvino",), ("nncf",)
    int8 = (
        "NNCF after training: symmetric weights with a scale for each output channel, activations by the"
        " widest range seen"
    )
    any_batch = True

    def convert(self, net: nn.Module, resolution: int, facts: Facts | None = None) -> Model:
        return _saved(_model(net, resolution), facts)

    def quantize(
        self, net: nn.Module, resolution: int, images: np.ndarray, facts: Facts | None = None
    ) -> Model:
        with quiet():
            import nncf  # pyright: ignore[reportMissingImports]
            from nncf.quantization.range_estimator import (  # pyright: ignore[reportMissingImports]
                RangeEstimatorParametersSet,
            )

            data = nncf.Dataset([image[None] for image in images])
            # The widest range seen: NNCF's own is the mean over images, which cuts off what lies beyond and
            # cost points of accuracy.
            ranges = nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
            )
            model = nncf.quantize(
                _model(net, resolution), data, subset_size=len(images), advanced_parameters=ranges
            )
        return _saved(model, facts)

    def facts(self, files: Files) -> Facts:
        model = _read(files)
        if not model.has_rt_info(["hbo"]):
            return {}
        return {key: value.astype(str) for key, value in model.get_rt_info(["hbo"]).astype(dict).items()}

    def open(self, files: Files, threads: int) -> Session:
        import openvino  # pyright: ignore[reportMissingImports]

        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # on a processor with bfloat16 the default is that
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = openvino.Core().compile_model(_read(files), "CPU", settings)
        request = compiled.create_infer_request()
        return lambda images: request.infer([np.asarray(images, dtype=np.float32)], share_inputs=True)[
            0
        ].copy()


RUNTIME = OpenVINO()


def _model(net: nn.Module, resolution: int) -> Any:
    import openvino  # pyright: ignore[reportMissingImports]

    image = torch.zeros(2, 3, resolution, resolution)
    with quiet():
        program = torch.export.export(net.eval(), (image,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        model = openvino.convert_model(program)
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

    return openvino.Core().read_model(
        files[".xml"], openvino.Tensor(np.frombuffer(files[".bin"], dtype=np.uint8))
    )
