"""ONNX Runtime: `.onnx`, for servers and desktops."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hbo.deploy.runtimes.base import INPUT, OUTPUT, Event, Facts, Files, Model, Runtime, Session, Traced

OPSET = 23


class Onnx(Runtime):
    """Any batch. Its threads sleep between images, so that they slow down nothing else."""

    name, title, target = "onnx", "ONNX Runtime", "onnx"
    suffix = ".onnx"
    packages = ("onnx", "onnxruntime", "onnxscript")
    modules = ("onnx", "onnxruntime", "onnxscript")
    no_int8 = (
        "its depthwise convolutions and Resize are slower in 8 bits than in single precision, and so is"
        " the network"
        " with some of them left in float (ablations/bench); use --to openvino, litert or executorch"
    )
    any_batch = True

    @property
    def extra(self) -> str:
        return "export"

    def convert(self, net: nn.Module, resolution: int, facts: Facts | None = None) -> Model:
        return _labelled(to_onnx(net, resolution), facts)

    def facts(self, files: Files) -> Facts:
        import onnx

        return {entry.key: entry.value for entry in onnx.load_from_string(files[".onnx"]).metadata_props}

    def open(self, files: Files, threads: int) -> Session:
        session = open_session(files[".onnx"], threads)
        name = session.get_inputs()[0].name
        return lambda images: session.run(None, {name: np.asarray(images, dtype=np.float32)})[0]

    def traced(self, files: Files) -> Traced:
        folder = tempfile.TemporaryDirectory(prefix="hbo-")
        session = open_session(files[".onnx"], 1, profile=str(Path(folder.name) / "profile"))
        name = session.get_inputs()[0].name

        def events() -> list[Event]:
            with folder:
                return _events(json.loads(Path(session.end_profiling()).read_text()))

        return Traced(lambda image: session.run(None, {name: image}), events)


RUNTIME = Onnx()


def _labelled(model: Any, facts: Facts | None) -> Model:
    for key, value in (facts or {}).items():
        model.metadata_props.add(key=key, value=value)
    return Model({".onnx": model.SerializeToString()})


def to_onnx(net: nn.Module, resolution: int) -> Any:
    """A network of (B, 3, R, R) as an ONNX model in memory, any B, checked by onnx."""
    import onnx

    image = torch.zeros(2, 3, resolution, resolution)
    program = torch.onnx.export(
        net.eval(),
        (image,),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[INPUT],
        output_names=[OUTPUT],
    )
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info, *(n for f in model.functions for n in f.node)):
        del part.metadata_props[:]  # paths of the Python code that called it
    onnx.checker.check_model(model, full_check=True)
    return model


def _events(profile: list[dict[str, Any]]) -> list[Event]:
    """A node's events in ONNX Runtime's profile, of all images; a convolution's kind has its kernel."""
    times: dict[str, tuple[str, list[float]]] = {}
    for event in profile:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        args = event["args"]
        kind = args["op_name"]
        shapes = [shape for given in args["input_type_shape"] for shape in given.values()]
        if kind == "Conv":
            _, inputs, *kernel = shapes[1]
            depthwise = " depthwise" if inputs == 1 and max(kernel) > 1 else ""
            kind = f"Conv {'x'.join(map(str, kernel))}{depthwise}"
        times.setdefault(event["name"], (kind, []))[1].append(float(event["dur"]))
    return list(times.values())


def open_session(model: bytes, threads: int, profile: str | None = None) -> Any:
    """ONNX Runtime on the CPU; with a profile, at the path that begins so, once `end_profiling` is called."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
