"""What `hubconf.py` offers: a network by name, with fresh weights or those of a file."""

import json
from pathlib import Path
from typing import Any

from hbo import api, files, predict
from hbo.block import Block
from hbo.errors import UserError
from hbo.runs.weights import read

FIELDS = (*Block.__dataclass_fields__, "width", "divisor", "first_stage")  # of `hbo.build`


def network(net: str, weights: str | Path | None = None, **fields: Any) -> Any:
    """A network in evaluation mode where it has weights.

    Args:
        net: its name, as for `hbo.build`.
        weights: a run's folder, last.ckpt, a .safetensors of `hbo.export`, or a .pth of the authors' release;
            None: fresh ones.
        fields: of `hbo.build`; with weights they come from the file.

    Raises:
        UserError: an unknown field, no such file, or one of another network.
    """
    if "pretrained" in fields:  # as torchvision's hub has it
        raise UserError(
            "pretrained: the project has no weights of its own; weights=FILE loads a run's or a release's"
        )
    if weights is None:
        return api.build(net, **fields)
    if fields:
        raise UserError(f"{', '.join(fields)}: the network comes from weights={weights}; leave it out")
    path = files.expanded(weights, "weights")
    if path.suffix == ".safetensors":
        named, loaded = _safetensors(path)
    else:
        trained = predict.opened(path, {})
        if trained.run.task != "classify":
            raise UserError(
                f"weights={weights}: trained to {trained.run.task}; use a classifier's, or hbo.load"
            )
        named, loaded = trained.run.net, None
    if named != net:
        raise UserError(f"weights={weights}: of {named}, not of {net}")
    return api.load(path) if loaded is None else loaded


def _safetensors(path: Path) -> tuple[str, Any]:
    """The network's name and the network of a file of `hbo.export --to safetensors`, whose header says which
    it is of.
    """
    from safetensors import safe_open

    state = read(path)
    with safe_open(path, "pt") as file:
        facts = file.metadata() or {}
    if "run" not in facts:
        raise UserError(
            f"weights={path}: not written by hbo.export --to safetensors; its header names no network"
        )
    run, classes = json.loads(facts["run"]), json.loads(facts["classes"])
    number = classes if isinstance(classes, int) else len(classes)
    own = {name: run[name] for name in FIELDS if name in run}  # a switch since then has its default
    loaded: Any = api.build(run["net"], num_classes=number, **own)
    loaded.load_state_dict(state)
    loaded.classes = None if isinstance(classes, int) else classes
    return run["net"], loaded.eval()
