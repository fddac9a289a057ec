"""ncnn: `.param` and `.bin`, for phones; made by pnnx from a traced network."""

import importlib
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hbo.deploy.runtimes.base import Facts, Files, Model, Runtime, Session, one_by_one, quiet
from hbo.errors import UserError


class Ncnn(Runtime):
    """One image at a time, in float32. The format cannot hold facts, so FILE.json alone has them."""

    name, title, target = "ncnn", "ncnn", "ncnn"
    suffix = ".ncnn.param"
    beside = (".bin",)
    input_name = "in0"
    packages = ("ncnn", "pnnx")
    modules = ("ncnn", "pnnx")
    no_int8 = "its package holds the runtime without the quantiser (ncnn2table, ncnn2int8)"

    def convert(self, net: nn.Module, resolution: int, facts: Facts | None = None) -> Model:
        import pnnx  # pyright: ignore[reportMissingImports]

        image = torch.zeros(1, 3, resolution, resolution)
        with tempfile.TemporaryDirectory() as folder, quiet():
            # Exported before it is traced: sizes are numbers then, which pnnx cannot compute.
            traced: Any = torch.jit.trace(_exported(net, image), image, check_trace=False)
            source = Path(folder) / "net.pt"
            traced.save(str(source))
            shape = f"inputshape=[1,3,{resolution},{resolution}]f32"
            done = subprocess.run(
                [pnnx.EXEC_PATH, source, shape, "fp16=0"], cwd=folder, capture_output=True, text=True
            )
            param, weights = (Path(folder) / f"net.ncnn.{part}" for part in ("param", "bin"))
            if done.returncode or not param.exists():
                raise UserError(
                    "ncnn: pnnx could not convert the network"
                    f" ({(done.stderr or done.stdout).strip()[-200:]})"
                )
            files = {".param": param.read_bytes(), ".bin": weights.read_bytes()}
        if unknown := {
            line.split()[0]
            for line in files[".param"].decode().splitlines()[2:]
            if line.startswith(("pnnx.", "aten::"))
        }:
            raise UserError(
                f"ncnn: no {', '.join(sorted(unknown))}; use another --upsample, or another runtime"
            )
        return Model(files)

    def open(self, files: Files, threads: int) -> Session:
        # Its names are made when it is loaded, which no type checker sees.
        ncnn: Any = importlib.import_module("ncnn")
        net = ncnn.Net()
        net.opt.num_threads = threads
        for half in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(net.opt, half, False)
        with tempfile.TemporaryDirectory() as folder:
            for suffix, content in files.items():
                (Path(folder) / f"net{suffix}").write_bytes(content)
            net.load_param(f"{folder}/net.param")
            net.load_model(f"{folder}/net.bin")

        def run(image: np.ndarray) -> np.ndarray:
            with net.create_extractor() as extractor:
                extractor.input("in0", ncnn.Mat(image[0]).clone())
                return np.array(extractor.extract("out0")[1])[None]

        return one_by_one(run)


RUNTIME = Ncnn()


def _exported(net: nn.Module, image: torch.Tensor) -> Any:
    """The network as a graph, without the aliases that dropout leaves: ncnn has no such operator."""
    module: Any = torch.export.export(net.eval(), (image,)).module()
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten.alias.default:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.recompile()
    return module
