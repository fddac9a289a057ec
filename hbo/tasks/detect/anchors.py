"""The anchors of SSD's maps, and their matching with objects."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

RATIOS = [2, 3]  # of the sides, besides 1 : 1 in two sizes: six anchors per cell
LARGEST = 0.95  # side of the largest anchors relative to the image's
Kind = Literal["ssdlite", "torchvision"]


class Anchors(DefaultBoxGenerator):
    """Six anchors per cell as in torchvision, with scales spaced evenly from `min_scale` on the first map to
    0.95 on the last.

    With "ssdlite" the first map has three, like TensorFlow's generator for MobileNetV2's SSD
    (`reduce_boxes_in_lowest_layer`), which the paper uses (section 4.2): a square of scale 0.1, and 2 : 1
    and 1 : 2 at `min_scale`. There 0.1 is half of the published `min_scale`, 0.2; here the square is always
    half of `min_scale`, so that it stays the smallest.

    Args:
        kind: "ssdlite" or "torchvision".
        min_scale: side of the first map's anchors relative to the image's.
        maps: number of maps.
    """

    def __init__(self, kind: Kind, min_scale: float, maps: int) -> None:
        super().__init__([RATIOS] * maps, min_scale, LARGEST)
        if kind == "ssdlite":
            long, short = min_scale * 2**0.5, min_scale / 2**0.5
            self._wh_pairs[0] = torch.tensor([[min_scale / 2] * 2, [long, short], [short, long]])

    def num_anchors_per_location(self) -> list[int]:
        return [len(pairs) for pairs in self._wh_pairs]

    def boxes(self, sizes: list[tuple[int, int]], resolution: int) -> Float[Tensor, "a 4"]:
        """All anchors in pixels, (x1, y1, x2, y2).

        Args:
            sizes: heights and widths of the maps.
            resolution: side of the square input.
        """
        image = ImageList(torch.empty(1, 3, resolution, resolution), [(resolution, resolution)])
        return self(image, [torch.empty(1, 1, *size) for size in sizes])[0]


def bipartite(overlaps: Float[Tensor, "g a"]) -> Int[Tensor, " g"]:
    """One anchor for each object, none shared: the pair with the largest overlap first, then the largest of
    the rest, as in SSD's own code.

    Args:
        overlaps: intersection over union of G objects with A >= G anchors.
    """
    most, best = overlaps.max(1)
    if len(best.unique()) == len(best):
        return best
    left, waiting, chosen = overlaps.clone(), torch.ones_like(best, dtype=torch.bool), torch.empty_like(best)
    for _ in range(len(best)):
        one = int(most.masked_fill(~waiting, -1).argmax())
        chosen[one], waiting[one], left[:, best[one]] = best[one], False, -1
        again = waiting & (best == best[one])
        most[again], best[again] = left[again].max(1)
    return chosen
