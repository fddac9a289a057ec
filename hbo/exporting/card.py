"""`hbo.export --to safetensors`: the weights under the network's own names, and a
model card written from the row.
"""

import json
from typing import Any

from hbo.runs.checkpoint import Trained, trained_for
from hbo.tasks import COLUMNS

PERCENT = ("top1", "top5", "balanced_accuracy", "f1")


def weights(task: Any, facts: dict[str, str]) -> bytes:
    """The evaluated network's state as a safetensors file, the facts in its header."""
    from safetensors.torch import save

    state = {name: value.contiguous() for name, value in task.net.state_dict().items()}
    return save(state, metadata=facts | {"format": "pt"})


def card(about: dict[str, Any], trained: Trained, row: dict[str, Any], file: str) -> str:
    """The model card, Markdown: data, metrics with n, multiply-adds, how it was trained, licence."""
    run = about["run"]
    classes = about["classes"]
    named = (
        f"{classes} classes"
        if isinstance(classes, int)
        else f"{len(classes)} classes: {', '.join(map(str, classes))}"
    )
    of = f" of its {about['metrics_on']['part']} part" + (f", {_images(row)} images" if _images(row) else "")
    folder = row.get("folder") if run["data"] == "imagefolder" else None
    lines = [
        f"# {about['network']}",
        "",
        f"An image classifier trained on {folder or run['data']}; {named}.",
        "",
        "## Metrics",
        "",
        *([f"One run, seed {run['seed']}, its last epoch, on the images{of}.", ""] if trained.ours else []),
        *[f"- {COLUMNS[name]}: {_shown(name, value)}" for name, value in about["metrics"].items()],
        *([] if about["metrics"] else ["None: the file came without its row."]),
        "",
        "## Cost",
        "",
        *(
            [f"- multiply-adds: {about['macs'] / 1e6:.1f} M at {run['resolution']} x {run['resolution']}"]
            if about["macs"]
            else []
        ),
        f"- parameters: {sum(value.numel() for value in _parameters(trained)) / 1e6:.3f} M",
        "",
        "## How it was trained",
        "",
        "By the authors of the release; see their repository."
        if not trained.ours
        else f"{trained_for(trained.content)}, batch {run['batch']}, {run['optimizer']}, rate {run['lr']},"
        f" {run['schedule']} schedule, weight decay {run['weight_decay']}; crops: {run['crop']}, flips:"
        f" {run['flip']}. Key"
        f" {about['key']}; to train it again, run `python -m hbo.fit` with the fields of `run` in the JSON"
        " file beside this card.",
        "",
        "## Use",
        "",
        *[f"1. {step}" for step in about["preprocess"]],
        "",
        "```python",
        *_loaded(run["net"], file),
        "```",
        "",
        "## Licence",
        "",
        f"Code: {about['licence']['code']}. Images it was trained on: {about['licence']['images']}.",
        "",
    ]
    return "\n".join(lines)


def _loaded(net: str, file: str) -> list[str]:
    """Python that loads the file; torch.hub's names have no colon."""
    if ":" in net:
        return ["from hbo import hub", f'net = hub.network("{net}", weights="{file}")']
    return [
        "import torch",
        f'net = torch.hub.load(REPO, "{net}", source="local", weights="{file}")  # REPO: a checkout',
    ]


def _images(row: dict[str, Any]) -> Any:
    return row.get("val_images_seen", row.get("val_images"))


def _shown(name: str, value: float) -> str:
    return f"{100 * value:.2f} %" if name in PERCENT or abs(value) <= 1 else f"{value:.4g}"


def _parameters(trained: Trained) -> list[Any]:
    state = trained.content.get("state_dict", trained.content)
    names = ("weight", "bias")
    return [v for k, v in state.items() if k.endswith(names) and not k.startswith(("averaged.", "class_"))]


def as_header(about: dict[str, Any]) -> dict[str, str]:
    """Name -> JSON text: safetensors' header can only hold text."""
    return {name: json.dumps(value) for name, value in about.items()}
