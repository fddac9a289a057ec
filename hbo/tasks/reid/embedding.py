"""A network without its classifier: one global feature per image, by which images are
compared (section 4.3, table 9).
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from hbo.nets.counting import stages
from hbo.nets.features import without_linear


class Embedding(nn.Module):
    """The input of a network's own classifier: its last map, pooled as the network pools it.

    Args:
        backbone: any network whose classifier ends in a linear layer, which is removed.
        bn_neck: a batch norm after the feature, whose bias stays 0 (Luo et al. 2019).
    """

    def __init__(self, backbone: nn.Module, bn_neck: bool = False) -> None:
        super().__init__()
        self.channels = without_linear(backbone)
        self.backbone = backbone
        self.neck: nn.Module = nn.Identity()
        if bn_neck:
            self.neck = nn.BatchNorm1d(self.channels)
            self.neck.bias.requires_grad_(False)

    @property
    def built(self) -> list[Any]:
        """Depths and ratios of the backbone's blocks, as built."""
        return getattr(self.backbone, "built", [])

    def stages(self) -> dict[str, str]:
        """Module name -> its part, in the table of costs."""
        return {
            f"backbone.{module}": stage
            for module, stage in stages(self.backbone).items()
            if stage != "classifier"
        }

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """The feature, before the neck."""
        return self.backbone(x).flatten(1)


class Feature(nn.Module):
    """The feature by which images are compared: the embedding's, after its neck if it has one.

    Args:
        embedding: trained.
        mirrored: average the features of the image and of its mirror image (`flip_features`).
    """

    def __init__(self, embedding: Embedding, mirrored: bool = False) -> None:
        super().__init__()
        self.embedding, self.mirrored = embedding, mirrored

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        feature = self.embedding.neck(self.embedding(x).float())
        if not self.mirrored:
            return feature
        return (feature + self.embedding.neck(self.embedding(x.flip(-1)).float())) / 2
