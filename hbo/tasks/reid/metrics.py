"""Ranked retrieval as Market-1501 defines it: CMC and mean average precision of single queries (`hbo.metrics` has them by name).

A gallery image of the query's own identity and camera is left out, and so is junk (identity -1); distractors (identity 0) are
ranked and match nothing. A query without a match in the gallery is left out of the means and counted. Average precision is the
mean of the precision at each match.

Distances are worked out in double precision. Equal ones keep the gallery's order: the first image comes first, whatever torch or
numpy would do. Gallery images of equal features are equally far, to the bit (a matrix product alone does not promise that).
"""

import math
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from tqdm import tqdm

from hbo.errors import UserError

JUNK, DISTRACTOR = -1, 0  # identities that match nothing
RANKS = (1, 5, 10, 20)
TOP = 10  # places of a ranking that are kept
CHUNK = 128  # queries at a time: some 20 MB a copy of their distances to Market's gallery
Distance = Literal["euclidean", "cosine"]


def ranked(
    query_features: Float[Tensor, "q d"],
    query_ids: Int[Tensor, " q"],
    query_cameras: Int[Tensor, " q"],
    gallery_features: Float[Tensor, "g d"],
    gallery_ids: Int[Tensor, " g"],
    gallery_cameras: Int[Tensor, " g"],
    metric: Distance = "euclidean",
) -> dict[str, Tensor]:
    """What becomes of each query.

    Returns:
        average_precision (q,), NaN without a match; first (q,), the place of the first match from 1, 0 without; top (q, 10),
        the gallery images that rank first, as places in the gallery, -1 where there are no more.

    Raises:
        UserError: an unknown metric, parts that do not fit each other, or a feature that is no finite number.
    """
    sides = ((query_features, query_ids, query_cameras), (gallery_features, gallery_ids, gallery_cameras))
    if metric not in ("euclidean", "cosine"):
        raise UserError(f"metric={metric!r}: choose from euclidean, cosine")
    for name, (features, ids, cameras) in zip(("query", "gallery"), sides, strict=True):
        if features.ndim != 2 or not len(features) == len(ids) == len(cameras):
            raise UserError(
                f"{name}: {tuple(features.shape)} features, {len(ids)} ids, {len(cameras)} cameras; must be (n, d), n and n"
            )
    if query_features.shape[1] != gallery_features.shape[1]:
        raise UserError(
            f"features: {query_features.shape[1]} a query, {gallery_features.shape[1]} a gallery image; must be as many"
        )
    if not (query_features.isfinite().all() and gallery_features.isfinite().all()):
        raise UserError("features: some are infinite or not a number; distances from them mean nothing")
    exact = torch.float32 if query_features.device.type == "mps" else torch.float64
    queries, gallery = (features.detach().to(exact) for features, *_ in sides)
    if metric == "cosine":
        queries, gallery = normalize(queries), normalize(gallery)
    distinct, inverse = gallery.unique(dim=0, return_inverse=True) if len(gallery) else (gallery, gallery_ids)
    squares = distinct.square().sum(1) if metric == "euclidean" else distinct.new_zeros(len(distinct))
    places = torch.arange(1, len(gallery) + 1, device=gallery.device, dtype=exact)
    parts = []
    chunks = range(0, len(queries), CHUNK)
    for start in tqdm(chunks, "ranking", unit="chunk", delay=3, leave=False):
        some = slice(start, start + CHUNK)
        ids, cameras = query_ids[some, None], query_cameras[some, None]
        same = ids == gallery_ids  # (c, g)
        out = (gallery_ids == JUNK) | (same & (cameras == gallery_cameras))
        match = same & ~out & (ids != JUNK) & (ids != DISTRACTOR)
        # |q - g|^2 without |q|^2, which is the same for all of a row; without |g|^2 it is the cosine, 0 with a feature of zeros.
        distances = torch.addmm(squares, queries[some], distinct.T, alpha=-2)[:, inverse].masked_fill_(out, torch.inf)
        order = distances.argsort(dim=1, stable=True)
        match = match.gather(1, order)
        parts.append(_judge(match, places) | {"top": _first(order, ~out)})
    empty = {"average_precision": places[:0], "first": query_ids[:0], "top": query_ids.new_zeros(0, TOP)}
    return {name: torch.cat([part[name] for part in parts]) if parts else none for name, none in empty.items()}


def _judge(match: Bool[Tensor, "c g"], places: Float[Tensor, " g"]) -> dict[str, Tensor]:
    """Average precision and place of the first match of rankings."""
    matches = match.sum(1)
    precision = match.cumsum(1) / places
    average = (precision * match).sum(1) / matches  # 0 / 0 is NaN
    first = torch.where(matches > 0, match.int().argmax(1) + 1 if match.shape[1] else matches, 0)
    return {"average_precision": average, "first": first}


def _first(order: Int[Tensor, "c g"], counts: Bool[Tensor, "c g"]) -> Tensor:
    """The first places of rankings, those that were left out (at the end) as -1."""
    top = order.new_full((len(order), TOP), -1)
    some = order[:, :TOP]
    top[:, : some.shape[1]] = torch.where(counts.gather(1, some), some, -1)
    return top


def summary(outcomes: dict[str, Tensor]) -> dict[str, float]:
    """Means over the queries that have a match.

    Returns:
        map, rank1, rank5, rank10, rank20 (shares of queries whose first match is no later), NaN where no query has a match or a
        feature is no finite number;
        queries, and unmatched of them, which are counts.
    """
    first = outcomes["first"]
    matched = first > 0
    metrics = {"map": float(outcomes["average_precision"][matched].double().mean())}
    lost = math.isnan(metrics["map"])  # no match at all, or features that are no numbers
    metrics |= {f"rank{n}": math.nan if lost else float((first[matched] <= n).double().mean()) for n in RANKS}
    return metrics | {"queries": len(first), "unmatched": int((~matched).sum())}


def cmc_map(
    query_features: Float[Tensor, "q d"],
    query_ids: Int[Tensor, " q"],
    query_cameras: Int[Tensor, " q"],
    gallery_features: Float[Tensor, "g d"],
    gallery_ids: Int[Tensor, " g"],
    gallery_cameras: Int[Tensor, " g"],
    metric: Distance = "euclidean",
) -> dict[str, float]:
    """Mean average precision and cumulative matches of single queries, fractions in [0, 1].

    Args:
        query_features: of any float type, on any device, where all the others lie too.
        query_ids: -1 is junk, 0 a distractor.
        query_cameras: by which images of the query's own camera are left out.
        gallery_features: as many numbers an image.
        gallery_ids: as the queries'.
        gallery_cameras: as the queries'.
        metric: "euclidean" or "cosine" distance.

    Returns:
        As `summary`.

    Raises:
        UserError: an unknown metric, or parts that do not fit each other.
    """
    gallery = gallery_features, gallery_ids, gallery_cameras
    return summary(ranked(query_features, query_ids, query_cameras, *gallery, metric=metric))


class Rankings(Metric):
    """What became of each query, from features that come batch by batch and process by process.

    `compute()` refuses an image counted twice, which is what a padded distributed evaluation does. The gallery's order, by
    which ties are broken, is that of the indices.
    """

    COLUMNS = ("index", "feature", "identity", "camera", "query")
    full_state_update = False

    def __init__(self, metric: Distance = "euclidean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.metric: Distance = metric
        for name in self.COLUMNS:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        feature: Float[Tensor, "b d"],
        identity: Int[Tensor, " b"],
        camera: Int[Tensor, " b"],
        query: Bool[Tensor, " b"],
        index: Int[Tensor, " b"],
    ) -> None:
        """One batch, of queries and gallery images in any mixture."""
        for name, values in zip(self.COLUMNS, (index, feature, identity, camera, query), strict=True):
            getattr(self, name).append(values.detach())

    def compute(self) -> dict[str, Any]:
        """`index` of all images; `query` (q,) the queries' indices, with `ranked`'s columns, `top` as indices too; on the CPU."""
        columns = {name: dim_zero_cat(getattr(self, name)) for name in self.COLUMNS}
        order = columns["index"].argsort()
        index, feature, identity, camera, query = (columns[name][order] for name in self.COLUMNS)
        if len(index.unique()) != len(index):
            raise RuntimeError("an image was counted twice in the evaluation")
        lost = not feature.isfinite().all()
        feature = torch.zeros_like(feature) if lost else feature
        sides = [part[which] for which in (query, ~query) for part in (feature, identity, camera)]
        found = ranked(*sides, metric=self.metric)
        if lost:  # the network is, and ranks nothing
            found["average_precision"].fill_(torch.nan)
        gallery = index[~query]
        found["top"] = torch.where(found["top"] < 0, -1, gallery[found["top"].clamp(min=0)] if len(gallery) else -1)
        columns = {"index": index, "query": index[query], "identity": identity[query], "camera": camera[query], **found}
        return {name: values.cpu() for name, values in columns.items()}


class CMCMeanAveragePrecision(Rankings):
    """`cmc_map` as a torchmetrics class: the same numbers, however the images are shared by batches and processes."""

    higher_is_better = True
    is_differentiable = False

    def compute(self) -> dict[str, Any]:
        """As `summary`."""
        return summary(super().compute())
