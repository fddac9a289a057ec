"""A zoo's published weights: their file, and where the zoo's own API stores it.

torchvision's are in torch's hub folder, timm's in the cache of its hub (older ones in torch's), pytorchcv's
in its model store.
"""

import os
from pathlib import Path
from typing import Any

from hbo.errors import UserError, first_line
from hbo.nets.zoo import Rival


def file(net: str, download: bool = False, field: str = "weights") -> Path:
    """The file of a zoo network's default weights.

    Args:
        net: `torchvision:NAME`, `timm:NAME` or `pytorchcv:NAME`.
        download: whether the zoo's own function may fetch a file that is not on this machine.
        field: the field that asks for it, for the message.

    Raises:
        UserError: the file is missing and may not or could not be fetched, or the zoo publishes none.
    """
    said = "weights=default" if field == "weights" else f"{field}={net}"
    zoo, _, name = net.partition(":")
    try:
        where, fetch = {"torchvision": _torchvision, "timm": _timm, "pytorchcv": _pytorchcv}[zoo](name)
    except ImportError as error:
        raise UserError(f"net={net}: {zoo} is not installed ({error}); pip install -e '.[zoo]'") from None
    except (LookupError, ValueError, RuntimeError):
        Rival(net, 1)  # raises for a misspelled name, which has no weights either
        raise UserError(f"{said}: {zoo} publishes none for {name}; remove it") from None
    if where.is_file():
        return where
    if not download:
        raise UserError(f"{said}: {where}: no such file; --download fetches the weights of {net} there")
    try:
        return Path(fetch())
    except Exception as error:  # network, server, full disk: each zoo raises its own
        raise UserError(
            f"{said}: {where.name} could not be downloaded ({first_line(error)}); put it into {where.parent}"
        ) from None


def _hub(url: str) -> Path:
    """Where torch's hub stores a download from this address."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(url)


def _torchvision(name: str) -> tuple[Path, Any]:
    from torchvision import models

    weights: Any = models.get_model_weights(name)
    best = weights.DEFAULT
    where = _hub(best.url)

    def fetch() -> Path:
        best.get_state_dict(progress=True, check_hash=True)
        return where

    return where, fetch


def _timm(name: str) -> tuple[Path, Any]:
    import timm
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    known: Any = timm.models.get_pretrained_cfg(name)
    if known is None or known.custom_load or not (known.hf_hub_id or known.url):
        raise LookupError(name)
    names = [known.hf_hub_filename] if known.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    repo, _, revision = (known.hf_hub_id or "").partition("@")
    for one in names if repo else ():
        if isinstance(where := try_to_load_from_cache(repo, one, revision=revision or None), str):
            return Path(where), None
    if known.url and (old := _hub(known.url)).is_file():
        return old, None

    if not repo:
        return _hub(known.url), lambda: timm.models._hub.download_cached_file(known.url)

    def fetch() -> str:
        for one in names[:-1]:
            try:
                return hf_hub_download(repo, one, revision=revision or None)
            except EntryNotFoundError:
                continue
        return hf_hub_download(repo, names[-1], revision=revision or None)

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / names[0], fetch


def _pytorchcv(name: str) -> tuple[Path, Any]:
    from pytorchcv.models.common import model_store

    error, digest, _ = model_store.get_model_name_suffix_data(name)
    if digest == "NA":
        raise LookupError(name)
    where = Path("~/.torch/models").expanduser() / f"{name}-{error}-{digest[:8]}.pth"
    return where, lambda: model_store.get_model_file(name)
