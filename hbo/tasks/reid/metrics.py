"""Ranked retrieval as defined by Market-1501: CMC and mean average precision of single
queries (exported by `hbo.metrics`).

Gallery images with the query's identity and camera are ignored, and so is junk (identity -1); distractors
(identity 0) are ranked and match nothing. Queries without a match in the gallery are counted, and are not in
the means. Average precision is the mean of the precision at each match. A query's inverse negative penalty is
the number of its matches over the rank of the last one (Ye et al. 2021, "Deep Learning for Person
Re-identification: A Survey and Outlook"); mINP is its mean.

Distances are computed in double precision. Ties keep the gallery's order, whatever torch or
numpy would do. Gallery images with equal features have equal distances, to the bit (a matrix
product alone does not guarantee that).
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from tqdm import tqdm

from hbo.errors import UserError
from hbo.tasks.reid.rerank import Reranked

JUNK, DISTRACTOR = -1, 0  # identities that match nothing
RANKS = (1, 5, 10, 20)
TOP = 10  # ranks that are stored
CHUNK = 128  # queries per chunk: some 20 MB per copy of their distances to Market's gallery
Distance = Literal["euclidean", "cosine"]


def ranked(
    query_features: Float[Tensor, "q d"],
    query_ids: Int[Tensor, " q"],
    query_cameras: Int[Tensor, " q"],
    gallery_features: Float[Tensor, "g d"],
    gallery_ids: Int[Tensor, " g"],
    gallery_cameras: Int[Tensor, " g"],
    metric: Distance = "euclidean",
    rerank: bool = False,
) -> dict[str, Tensor]:
    """Result of each query.

    Returns:
        average_precision (q,), NaN without a match; inverse_negative_penalty (q,), likewise; first (q,), the
        rank of the first match from 1, 0 without one; top (q, 10), the first 10 gallery images, as positions
        in the gallery, -1 if there are fewer.

    Raises:
        UserError: an unknown metric, shapes that do not match, or a feature that is not finite.
    """
    sides = ((query_features, query_ids, query_cameras), (gallery_features, gallery_ids, gallery_cameras))
    if metric not in ("euclidean", "cosine"):
        raise UserError(f"metric={metric!r}: choose from euclidean, cosine")
    for name, (features, ids, cameras) in zip(("query", "gallery"), sides, strict=True):
        if features.ndim != 2 or not len(features) == len(ids) == len(cameras):
            raise UserError(
                f"{name}: {tuple(features.shape)} features, {len(ids)} ids, {len(cameras)} cameras; must be"
                f" (n, d), n and n"
            )
    if query_features.shape[1] != gallery_features.shape[1]:
        raise UserError(
            f"features: {query_features.shape[1]} per query, {gallery_features.shape[1]} per gallery image;"
            " must be equal"
        )
    if not (query_features.isfinite().all() and gallery_features.isfinite().all()):
        raise UserError("features: some are infinite or NaN; distances would be meaningless")
    exact = torch.float32 if query_features.device.type == "mps" else torch.float64
    queries, gallery = (features.detach().to(exact) for features, *_ in sides)
    if metric == "cosine":
        queries, gallery = normalize(queries), normalize(gallery)
    counts = gallery_ids != JUNK
    again = rerank and len(queries) > 0 and bool(counts.any())
    far = _reranked(queries, gallery, counts) if again else _plain(queries, gallery, metric)
    places = torch.arange(1, len(gallery) + 1, device=gallery.device, dtype=exact)
    parts = []
    chunks = range(0, len(queries), CHUNK)
    for start in tqdm(chunks, "ranking", unit="chunk", delay=3, leave=False):
        some = slice(start, start + CHUNK)
        ids, cameras = query_ids[some, None], query_cameras[some, None]
        same = ids == gallery_ids  # (c, g)
        out = (gallery_ids == JUNK) | (same & (cameras == gallery_cameras))
        match = same & ~out & (ids != JUNK) & (ids != DISTRACTOR)
        order = far(some).masked_fill_(out, torch.inf).argsort(dim=1, stable=True)
        match = match.gather(1, order)
        parts.append(_judge(match, places) | {"top": _first(order, ~out)})
    empty = {"average_precision": places[:0], "inverse_negative_penalty": places[:0], "first": query_ids[:0]}
    empty["top"] = query_ids.new_zeros(0, TOP)
    return {
        name: torch.cat([part[name] for part in parts]) if parts else none for name, none in empty.items()
    }


def _plain(
    queries: Float[Tensor, "q d"], gallery: Float[Tensor, "g d"], metric: Distance
) -> Callable[[slice], Tensor]:
    """Queries -> values that rank the gallery as the distance does, (c, g)."""
    nothing = torch.zeros(0, dtype=torch.long, device=gallery.device)
    distinct, inverse = gallery.unique(dim=0, return_inverse=True) if len(gallery) else (gallery, nothing)
    squares = distinct.square().sum(1) if metric == "euclidean" else distinct.new_zeros(len(distinct))
    # |q - g|^2 without |q|^2, which is constant in a row; without |g|^2 it is the cosine, 0 for a zero
    # feature.
    return lambda some: torch.addmm(squares, queries[some], distinct.T, alpha=-2)[:, inverse]


def _reranked(
    queries: Float[Tensor, "q d"], gallery: Float[Tensor, "g d"], counts: Bool[Tensor, " g"]
) -> Callable[[slice], Tensor]:
    """The same after re-ranking, from which junk is excluded."""
    reranked = Reranked(queries, gallery[counts])

    def far(some: slice) -> Tensor:
        found = reranked.rows(some)
        every = found.new_zeros(len(found), len(gallery))
        every[:, counts] = found
        return every

    return far


def _judge(match: Bool[Tensor, "c g"], places: Float[Tensor, " g"]) -> dict[str, Tensor]:
    """Average precision, inverse negative penalty, and rank of the first match."""
    matches = match.sum(1)
    precision = match.cumsum(1) / places
    average = (precision * match).sum(1) / matches  # 0 / 0 is NaN
    first = torch.where(matches > 0, match.int().argmax(1) + 1 if match.shape[1] else matches, 0)
    penalty = matches / (match * places).amax(1) if match.shape[1] else average
    return {"average_precision": average, "inverse_negative_penalty": penalty, "first": first}


def _first(order: Int[Tensor, "c g"], counts: Bool[Tensor, "c g"]) -> Tensor:
    """The first ranks; ignored images (at the end) become -1."""
    top = order.new_full((len(order), TOP), -1)
    some = order[:, :TOP]
    top[:, : some.shape[1]] = torch.where(counts.gather(1, some), some, -1)
    return top


def summary(outcomes: dict[str, Tensor]) -> dict[str, float]:
    """Means over the queries with a match.

    Returns:
        map, minp, rank1, rank5, rank10, rank20 (shares of queries whose first match has at most this rank),
        NaN if no query has a match or a feature is not finite; queries and unmatched, which are counts.
    """
    first = outcomes["first"]
    matched = first > 0
    means = {"map": "average_precision", "minp": "inverse_negative_penalty"}
    metrics = {name: float(outcomes[column][matched].double().mean()) for name, column in means.items()}
    lost = math.isnan(metrics["map"])  # no match at all, or features that are not finite
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
    rerank: bool = False,
) -> dict[str, float]:
    """Mean average precision, mINP and cumulative matches of single queries, fractions in [0, 1].

    Args:
        query_features: any float type, on any device, the same for all arguments.
        query_ids: -1 is junk, 0 a distractor.
        query_cameras: images of the query's own camera are ignored.
        gallery_features: of the same length as the queries'.
        gallery_ids: as the queries'.
        gallery_cameras: as the queries'.
        metric: "euclidean" or "cosine" distance.
        rerank: rank by k-reciprocal neighbours in that distance (`hbo.tasks.reid.rerank`, with its cost).

    Returns:
        As `summary`.

    Raises:
        UserError: an unknown metric, or shapes that do not match.
    """
    gallery = gallery_features, gallery_ids, gallery_cameras
    return summary(ranked(query_features, query_ids, query_cameras, *gallery, metric=metric, rerank=rerank))


class Rankings(Metric):
    """Result of each query, from features collected over batches and processes.

    `compute()` raises if an image was counted twice, as a padded distributed evaluation would do. Ties keep
    the gallery's order, which is that of the indices.
    """

    COLUMNS = ("index", "feature", "identity", "camera", "query")
    full_state_update = False

    def __init__(self, metric: Distance = "euclidean", rerank: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.metric: Distance = metric
        self.rerank = rerank
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
        """Add a batch of queries and gallery images, in any mixture."""
        for name, values in zip(self.COLUMNS, (index, feature, identity, camera, query), strict=True):
            getattr(self, name).append(values.detach())

    def compute(self) -> dict[str, Any]:
        """`index` of all images; `query` (q,) the queries' indices, with `ranked`'s columns, `top` as indices
        too; on the CPU.
        """
        columns = {name: dim_zero_cat(getattr(self, name)) for name in self.COLUMNS}
        order = columns["index"].argsort()
        index, feature, identity, camera, query = (columns[name][order] for name in self.COLUMNS)
        if len(index.unique()) != len(index):
            raise RuntimeError("an image was counted twice in the evaluation")
        lost = not feature.isfinite().all()
        feature = torch.zeros_like(feature) if lost else feature
        sides = [part[which] for which in (query, ~query) for part in (feature, identity, camera)]
        found = ranked(*sides, metric=self.metric, rerank=self.rerank and not lost)
        if lost:  # the network has diverged: no ranking
            found["average_precision"].fill_(torch.nan)
            found["inverse_negative_penalty"].fill_(torch.nan)
        gallery = index[~query]
        found["top"] = torch.where(
            found["top"] < 0, -1, gallery[found["top"].clamp(min=0)] if len(gallery) else -1
        )
        columns = {
            "index": index,
            "query": index[query],
            "identity": identity[query],
            "camera": camera[query],
            **found,
        }
        return {name: values.cpu() for name, values in columns.items()}


class CMCMeanAveragePrecision(Rankings):
    """`cmc_map` as a torchmetrics class, with the same result for any split into batches and processes."""

    higher_is_better = True
    is_differentiable = False

    def compute(self) -> dict[str, Any]:
        """As `summary`."""
        return summary(super().compute())
