"""Re-ranking by k-reciprocal neighbours (Zhong, Zheng, Cao and Li 2017, "Re-ranking Person Re-identification
with k-reciprocal Encoding").

Queries and gallery together are n images; d(p, g) is the squared Euclidean distance divided by p's largest.

    N(p, k)    the k + 1 nearest of p, including p
    R(p, k)    those of N(p, k) that have p among their own k + 1 nearest
    R*(p)      R(p, k1), and each R(q, k1 / 2), q in R(p, k1), of which more than two thirds are in R(p, k1)
    V(p)       exp(-d(p, g)) for g in R*(p), divided by their sum; elsewhere 0
    V'(p)      the mean of V over the first k2 of N(p, k1)
    d*(p, g)   (1 - lambda) J + lambda d(p, g), with J = 1 - s / (2 - s), s the sum of the smaller entries of
               V'(p) and V'(g)

As in the authors' code, k1 / 2 is rounded to even. Equal distances keep the images' order, queries first. If
there are fewer images than k1 + 1 or k2, all are used.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from torch import Tensor
from tqdm import tqdm

K1, K2, LAMBDA = 20, 6, 0.3  # the paper's
CHUNK = 128  # images per chunk


class Reranked:
    """Distances of queries to their gallery after re-ranking, in chunks of queries.

    No n x n matrix is built: neighbours are found for 128 images at a time (some 20 MB per copy of their
    distances at Market-1501's size, n = 3,368 + 15,913), and V is sparse. Memory holds the features twice, in
    double precision (250 MB each for 1,600 numbers), and V' (some 100 entries per image). Time grows as n^2.

    Args:
        queries: features; normalised if the distance is the cosine.
        gallery: features of the same length; at least one image.
        k1: neighbours.
        k2: the nearest of them, over which V is averaged.
        share: lambda, the weight of the plain distance.
    """

    def __init__(
        self,
        queries: Float[Tensor, "q d"],
        gallery: Float[Tensor, "g d"],
        k1: int = K1,
        k2: int = K2,
        share: float = LAMBDA,
    ) -> None:
        self.features, self.first, self.share = torch.cat([queries, gallery]), len(queries), share
        # Images with equal features get equal distances, to the bit, as these are computed once.
        self.distinct, self.inverse = self.features.unique(dim=0, return_inverse=True)
        self.squares = self.distinct.square().sum(1)
        near, self.farthest = self._neighbours(k1 + 1)
        self.vectors = self._averaged(self._encoded(near, round(k1 / 2) + 1), near[:, :k2])
        self.by_image = self.vectors.tocsc()

    def rows(self, some: slice) -> Float[Tensor, "c g"]:
        """The distances of some of the queries, from 0 to 1."""
        plain = self._squared(self.features[: self.first][some])[:, self.inverse]
        plain = plain / self.farthest[: self.first][some, None]
        jaccard = torch.from_numpy(
            np.stack([self._jaccard(query) for query in range(*some.indices(self.first))])
        )
        found = (1 - self.share) * jaccard.to(plain) + self.share * plain
        return found[:, self.first :]

    def _squared(self, features: Float[Tensor, "c d"]) -> Float[Tensor, "c u"]:
        """Squared distances to the distinct features."""
        found = torch.addmm(self.squares, features, self.distinct.T, alpha=-2)
        return found.add_(features.square().sum(1, keepdim=True)).clamp_(min=0)

    def _neighbours(self, k: int) -> tuple[Int[Tensor, "n k"], Float[Tensor, " n"]]:
        """The k nearest images of each, nearest first, and the largest squared
        distance of each (1 if all are 0).
        """
        # Written in place: a small tensor kept from each chunk would lie among the freed large ones, where
        # those of the next chunk no longer fit.
        many = len(self.distinct)
        near = torch.empty(many, min(k, len(self.inverse)), dtype=torch.long, device=self.features.device)
        far = self.squares.new_empty(many)
        for start in tqdm(range(0, many, CHUNK), "neighbours", unit="chunk", delay=3, leave=False):
            some = slice(start, start + CHUNK)
            squared = self._squared(self.distinct[some])[:, self.inverse]
            near[some] = nearest(squared, near.shape[1])
            far[some] = squared.amax(1)
        farthest = far[self.inverse]
        return near[self.inverse], torch.where(farthest > 0, farthest, 1.0)

    def _encoded(self, near: Int[Tensor, "n k"], half: int) -> sparse.csr_array:
        """V, (n, n)."""
        mutual, mutual_half = reciprocal(near), reciprocal(near[:, :half])
        rows, columns, weights = [], [], []
        for start in tqdm(range(0, len(near), CHUNK), "encoding", unit="chunk", delay=3, leave=False):
            some = slice(start, start + CHUNK)
            row, column = expanded(near, mutual, mutual_half, some).nonzero(as_tuple=True)
            row = row + start
            squared = (self.features[row] - self.features[column]).square().sum(1)
            weight = torch.exp(-squared / self.farthest[row])
            sums = torch.zeros_like(self.farthest).index_add_(0, row, weight)
            rows.append(row.cpu())
            columns.append(column.cpu())
            weights.append((weight / sums[row]).cpu())
        row, column, weight = (torch.cat(parts).numpy() for parts in (rows, columns, weights))
        return sparse.csr_array((weight, (row, column)), shape=(len(near), len(near)))

    def _averaged(self, vectors: sparse.csr_array, near: Int[Tensor, "n k"]) -> sparse.csr_array:
        """V': each image's row is the mean over its nearest images."""
        n, k = near.shape
        which = near.flatten().cpu().numpy()
        mean = sparse.csr_array((np.full(n * k, 1 / k), which, np.arange(0, n * k + 1, k)), shape=(n, n))
        return sparse.csr_array(mean @ vectors)

    def _jaccard(self, query: int) -> np.ndarray:
        """Jaccard distances of a query to all images, (n,)."""
        own = slice(self.vectors.indptr[query], self.vectors.indptr[query + 1])
        columns = self.by_image[:, self.vectors.indices[own]]
        smaller = np.minimum(columns.data, self.vectors.data[own].repeat(np.diff(columns.indptr)))
        shared = np.bincount(columns.indices, smaller, minlength=len(self.inverse))
        return 1 - shared / (2 - shared)


def nearest(distances: Float[Tensor, "c n"], k: int) -> Int[Tensor, "c k"]:
    """Positions of the k smallest values of each row, in the order of a stable sort, without sorting all."""
    values, places = distances.topk(k, dim=1, largest=False)
    if int((distances <= values.amax(1, keepdim=True)).sum()) > values.numel():  # ties at the border
        return distances.argsort(dim=1, stable=True)[:, :k]
    places = places.sort(dim=1).values
    return places.gather(1, distances.gather(1, places).argsort(dim=1, stable=True))


def reciprocal(near: Int[Tensor, "n k"]) -> Bool[Tensor, "n k"]:
    """Whether each neighbour has the image among its own neighbours: R as a mask of N."""
    parts = []
    for some in torch.arange(len(near), device=near.device).split(CHUNK):
        parts.append((near[near[some]] == some[:, None, None]).any(2))
    return torch.cat(parts)


def expanded(
    near: Int[Tensor, "n k"], mutual: Bool[Tensor, "n k"], mutual_half: Bool[Tensor, "n h"], some: slice
) -> Bool[Tensor, "c n"]:
    """R* of some images, as a mask of all."""
    own, is_own = near[some], mutual[some]
    theirs = near[:, : mutual_half.shape[1]][own]  # (c, k, h)
    is_theirs = mutual_half[own] & is_own[:, :, None]
    among = ((theirs[..., None] == own[:, None, None]) & is_own[:, None, None]).any(3)
    joins = 3 * (among & is_theirs).sum(2) > 2 * is_theirs.sum(2)
    found = torch.zeros(len(own), len(near), dtype=torch.bool, device=near.device)
    row = torch.arange(len(own), device=near.device)[:, None, None]
    for places, wanted in ((own[:, :, None], is_own[:, :, None]), (theirs, is_theirs & joins[:, :, None])):
        found[row.expand(places.shape)[wanted], places[wanted]] = True
    return found
