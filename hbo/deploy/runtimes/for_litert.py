"""LiteRT, formerly TensorFlow Lite: `.tflite`, for phones; its XNNPACK delegate runs it."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hbo.deploy.runtimes.base import Facts, Files, Model, Pieces, Runtime, Session, one_by_one, quiet

FACTS = "hbo"  # a metadata entry, JSON


class LiteRT(Runtime):
    """One image at a time; the input stays (1, 3, R, R). An int8 file's input and output are int8, too."""

    name, title, target = "litert", "LiteRT", "litert"
    suffix = ".tflite"
    input_name = "serving_default_args_0"
    int8_type = "int8"
    packages = ("litert-torch", "ai-edge-litert", "torchao")
    modules = ("ai_edge_litert", "litert_torch")
    int8 = "PT2E: symmetric weights with a scale for each output channel"

    @property
    def remedy(self) -> str:
        """Its pins conflict with W&B's, so it has its own environment."""
        return "make .venv-litert/installed, then .venv-litert/bin/python in place of python"

    def convert(self, net: nn.Module, resolution: int, facts: Facts | None = None) -> Model:
        return _converted(net.eval(), resolution, facts)

    def quantize(
        self, net: nn.Module, resolution: int, images: np.ndarray, facts: Facts | None = None
    ) -> Model:
        with quiet():
            from litert_torch.quantize.pt2e_quantizer import (  # pyright: ignore
                PT2EQuantizer,
                get_symmetric_quantization_config,
            )
            from litert_torch.quantize.quant_config import QuantConfig  # pyright: ignore
            from torchao.quantization.pt2e.quantize_pt2e import (  # pyright: ignore
                convert_pt2e,
                prepare_pt2e,
            )

            quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
            image = (torch.zeros(1, 3, resolution, resolution),)
            prepared = prepare_pt2e(torch.export.export(net.eval(), image).module(), quantizer)
            with torch.no_grad():
                for one in torch.from_numpy(images).split(1):
                    prepared(one)
            eight = convert_pt2e(prepared, fold_quantize=False)
        return _converted(eight, resolution, facts, quant_config=QuantConfig(pt2e_quantizer=quantizer))

    def facts(self, files: Files) -> Facts:
        model = _schema(files)
        for entry in model.metadata or []:
            if entry.name == FACTS.encode():
                return json.loads(bytes(model.buffers[entry.buffer].data).decode())
        return {}

    def open(self, files: Files, threads: int) -> Session:
        from ai_edge_litert.interpreter import Interpreter  # pyright: ignore

        with quiet():
            interpreter = Interpreter(model_content=files[".tflite"], num_threads=threads)
            interpreter.allocate_tensors()
        (given,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()

        def run(image: np.ndarray) -> np.ndarray:
            interpreter.set_tensor(given["index"], _in_steps(image, given))
            interpreter.invoke()
            return _from_steps(interpreter.get_tensor(out["index"]), out)

        return one_by_one(run)


RUNTIME = LiteRT()


def _in_steps(values: np.ndarray, tensor: Any) -> np.ndarray:
    """Float values as the tensor takes them: an int8 file's input and output are int8 too."""
    if tensor["dtype"] != np.int8:
        return values
    scale, zero = tensor["quantization"]
    return np.clip(np.round(values / scale) + zero, -128, 127).astype(np.int8)


def _from_steps(values: np.ndarray, tensor: Any) -> np.ndarray:
    if values.dtype != np.int8:
        return values
    scale, zero = tensor["quantization"]
    return (values.astype(np.float32) - zero) * np.float32(scale)


def _converted(net: Any, resolution: int, facts: Facts | None, **how: Any) -> Model:
    with quiet(), tempfile.TemporaryDirectory() as folder:
        import litert_torch  # pyright: ignore

        path = Path(folder) / "net.tflite"
        litert_torch.convert(net, (torch.zeros(1, 3, resolution, resolution),), **how).export(str(path))
        files = {".tflite": path.read_bytes()}
    if facts:
        files = {".tflite": _labelled(files, facts)}
    return Model(files, _pieces(files))


def _schema(files: Files) -> Any:
    from ai_edge_litert import schema_py_generated as schema  # pyright: ignore

    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(files[".tflite"], 0))


def _labelled(files: Files, facts: Facts) -> bytes:
    """The file with one more entry of metadata."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema  # pyright: ignore

    model = _schema(files)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    model.buffers.append(buffer)
    entry.name, entry.buffer = FACTS, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(files[".tflite"]) + len(buffer.data))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _pieces(files: Files) -> Pieces:
    """In how many pieces XNNPACK takes the network: what is left between
    them the interpreter does not say.
    """
    from ai_edge_litert.interpreter import Interpreter  # pyright: ignore

    with quiet():
        interpreter = Interpreter(model_content=files[".tflite"], num_threads=1)
        interpreter.allocate_tensors()
    names = [operator["op_name"] for operator in interpreter._get_ops_details()]
    return Pieces(None, names.count("DELEGATE"), {})
