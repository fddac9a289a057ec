"""Feature maps by stride, of any network, as SSD uses them (section 4.2)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from hbo.errors import UserError, first_line
from hbo.nets.shapes import dry_run


class Pyramid(nn.Module):
    """Adds `pyramid` to any network: for each stride the last map before the next downsampling.

    For MobileNetV2 and HBONet that is, at 16, the expansion layer of the first block of stride 32, and at 32
    the head's convolution, as in the paper's SSD (section 4.2).
    """

    def pyramid(self, x: Float[Tensor, "b 3 h w"]) -> dict[int, Tensor]:
        """Feature maps by stride.

        Raises:
            UserError: the network has no maps of strides 16 and 32, or none at this size.
        """
        if "_strides" not in self.__dict__:
            self.__dict__["_strides"] = _find_strides(self)
        maps: dict[int, Tensor] = {}
        size = tuple(x.shape[2:])
        hooks = [
            self.get_submodule(name).register_forward_hook(
                lambda _m, _i, out, s=stride: _keep(maps, s, size, out)
            )
            for stride, name in self.__dict__["_strides"].items()
        ]
        try:
            self(x)
        finally:
            for hook in hooks:
                hook.remove()
        if missing := sorted({16, 32} - maps.keys()):
            raise UserError(
                f"resolution={' x '.join(map(str, size))}: {type(self).__name__} has no map of stride"
                f" {missing[0]} at this size; use a multiple of 32"
            )
        return maps


def _keep(maps: dict[int, Tensor], stride: int, size: tuple[int, ...], out: Any) -> None:
    """Store a map of this stride, rounded up or down as in the network; a module may be
    called again at another stride.
    """
    if not isinstance(out, Tensor) or out.ndim != 4:
        return
    if all(n // stride <= found <= -(-n // stride) for n, found in zip(size, out.shape[2:], strict=True)):
        maps[stride] = out


def _find_strides(net: nn.Module) -> dict[int, str]:
    """{stride: name of the last module whose output has that stride}, seen in a
    forward pass that computes only shapes.
    """
    size = (224, 288)  # 7 x 9 at stride 32, so that pooled 1 x 1 maps are not mistaken for features
    sizes = {tuple(-(-n // stride) for n in size): stride for stride in (2, 4, 8, 16, 32)}
    found: dict[int, str] = {}

    def note(name: str, _module: nn.Module, out: object) -> None:
        if name and isinstance(out, Tensor) and out.ndim == 4 and tuple(out.shape[2:]) in sizes:
            found[sizes[tuple(out.shape[2:])]] = name

    try:
        dry_run(net, size, note)
    except UserError:
        raise
    except Exception as error:  # another author's network
        raise UserError(
            f"{type(net).__name__} does not support 224 x 288, so it has no pyramid ({first_line(error)})"
        ) from None
    if not {16, 32} <= found.keys():
        raise UserError(
            f"{type(net).__name__} has no feature maps of stride 16 and 32, so no pyramid; it has"
            f" {sorted(found)}"
        )
    return found
