"""k-reciprocal re-ranking against loops of the authors' formula, and its laws."""

import numpy as np
import pytest
import torch
from conftest import PEAK, call
from test_retrieval import feed, random_sides, shared

from hbo.metrics import CMCMeanAveragePrecision, cmc_map
from hbo.tasks.reid.metrics import ranked
from hbo.tasks.reid.rerank import Reranked, nearest


def by_loops(
    queries: np.ndarray, gallery: np.ndarray, k1: int, k2: int, share: float, grow: bool = True
) -> np.ndarray:
    """Zhong et al. 2017, sections 3.2 to 3.4, one image at a time, with sets and dicts."""
    images = [*queries.tolist(), *gallery.tolist()]
    n = len(images)
    d = [[sum((a - b) ** 2 for a, b in zip(p, g, strict=True)) for g in images] for p in images]
    d = [[value / (max(row) or 1.0) for value in row] for row in d]
    order = [sorted(range(n), key=lambda g, row=row: (row[g], g)) for row in d]
    neighbours = lambda p, k: order[p][: k + 1]
    r = lambda p, k: {g for g in neighbours(p, k) if p in neighbours(g, k)}
    vectors = []
    for p in range(n):
        own = r(p, k1)
        whole = set(own)
        for q in own if grow else ():
            theirs = r(q, int(np.around(k1 / 2)))
            if len(theirs & own) * 3 > 2 * len(theirs):
                whole |= theirs
        weights = {g: np.exp(-d[p][g]) for g in whole}
        total = sum(weights.values())
        vectors.append({g: weight / total for g, weight in weights.items()})
    averaged = []
    for p in range(n):
        few = order[p][:k2]
        keys = {g for q in few for g in vectors[q]}
        averaged.append({g: sum(vectors[q].get(g, 0.0) for q in few) / len(few) for g in keys})
    found = np.zeros((len(queries), len(gallery)))
    for p in range(len(queries)):
        for g in range(len(gallery)):
            a, b = averaged[p], averaged[len(queries) + g]
            smaller = sum(min(a[key], b[key]) for key in a.keys() & b.keys())
            larger = sum(max(a.get(key, 0.0), b.get(key, 0.0)) for key in a.keys() | b.keys())
            jaccard = 1 - smaller / larger if larger else 1.0
            found[p, g] = (1 - share) * jaccard + share * d[p][len(queries) + g]
    return found


def clusters(n: int, seed: int, size: int = 5) -> torch.Tensor:
    """Features around a few centres, so that neighbours are mutual and sets grow."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(max(n // 8, 2), size, generator=draw, dtype=torch.double)
    return centres[torch.randint(len(centres), (n,), generator=draw)] + 0.3 * torch.randn(
        n, size, generator=draw, dtype=torch.double
    )


@pytest.mark.parametrize(("q", "g", "k1", "k2", "share"), [
    (6, 60, 20, 6, 0.3), (10, 90, 20, 6, 0.3), (5, 50, 7, 3, 0.0), (5, 50, 9, 1, 0.5), (8, 40, 5, 2, 0.1),
    # fewer images than neighbours
    (1, 1, 20, 6, 0.3), (1, 3, 20, 6, 0.3), (3, 12, 20, 6, 0.3), (4, 17, 20, 30, 0.3),
])  # fmt: skip
def test_against_loops(q, g, k1, k2, share):
    for seed in range(4):
        features = clusters(q + g, seed)
        found = Reranked(features[:q], features[q:], k1, k2, share).rows(slice(0, q))
        expected = by_loops(features[:q].numpy(), features[q:].numpy(), k1, k2, share)
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-9)
        assert found.min() >= 0
        assert found.max() <= 1


def test_sets_grow_by_the_neighbours_neighbours():
    """The loops above would prove little if R* always equalled R; here it does not."""
    features = clusters(70, seed=0)
    plain = by_loops(features[:6].numpy(), features[6:].numpy(), 20, 6, 0.3)
    without = by_loops(features[:6].numpy(), features[6:].numpy(), 20, 6, 0.3, grow=False)
    assert np.abs(plain - without).max() > 0.01


def test_copies_of_an_image_and_images_all_alike():
    features = clusters(40, seed=1)
    features[20:32] = features[8:20]  # copies of images: ties everywhere
    found = Reranked(features[:5], features[5:]).rows(slice(0, 5))
    np.testing.assert_allclose(
        found.numpy(), by_loops(features[:5].numpy(), features[5:].numpy(), 20, 6, 0.3), atol=1e-9
    )
    alike = torch.ones(40, 3, dtype=torch.double)
    found = Reranked(alike[:5], alike[5:]).rows(slice(0, 5))
    np.testing.assert_allclose(
        found.numpy(), by_loops(alike[:5].numpy(), alike[5:].numpy(), 20, 6, 0.3), atol=1e-9
    )


def test_nearest_equals_a_stable_sort():
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        distances = torch.randint(0, 9, (7, 40), generator=draw).double()
        for k in (1, 5, 40):
            assert torch.equal(nearest(distances, k), distances.argsort(dim=1, stable=True)[:, :k])
    distances = torch.rand(7, 40, generator=draw)  # no ties: the fast path
    assert torch.equal(nearest(distances, 9), distances.argsort(dim=1, stable=True)[:, :9])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_ranking_is_by_the_new_distances_and_junk_takes_no_part(metric):
    for seed in range(10):
        queries, gallery = random_sides(seed, exact=False)
        found = ranked(*queries, *gallery, metric=metric, rerank=True)
        counts = gallery[1] != -1
        unit = lambda x: (
            x.double() / x.double().norm(dim=1, keepdim=True) if metric == "cosine" else x.double()
        )
        left = [values[counts] for values in gallery]
        far = by_loops(unit(queries[0]).numpy(), unit(left[0]).numpy(), 20, 6, 0.3)
        places = counts.nonzero().flatten()
        for i, top in enumerate(found["top"].tolist()):
            own = (left[1] == queries[1][i]) & (left[2] == queries[2][i])
            order = [g for g in np.argsort(far[i].round(9), kind="stable") if not own[g]][:10]
            assert [g for g in top if g >= 0] == places[order].tolist(), (seed, i)
        without = cmc_map(*queries, *left, metric=metric, rerank=True)
        assert cmc_map(*queries, *gallery, metric=metric, rerank=True) == without


def test_the_scale_of_the_features_and_the_galleries_order_do_not_matter():
    features = clusters(60, seed=2)
    usual = Reranked(features[:6], features[6:]).rows(slice(0, 6))
    torch.testing.assert_close(Reranked(7 * features[:6], 7 * features[6:]).rows(slice(0, 6)), usual)
    order = torch.randperm(54, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Reranked(features[:6], features[6:][order]).rows(slice(0, 6)), usual[:, order])
    torch.testing.assert_close(Reranked(features[:6], features[6:]).rows(slice(2, 4)), usual[2:4])


def test_a_crowded_neighbour_loses_to_mutual_ones():
    """The purpose of re-ranking: the query's nearest image has 30 others nearer to it than the query."""
    draw = torch.Generator().manual_seed(0)
    around = lambda x, n, wide: torch.tensor([[x, 0.0]]) + wide * torch.randn(n, 2, generator=draw)
    right, wrong = around(-1.1, 25, 0.2), around(1.0, 60, 0.02)  # the query is at 0
    gallery = torch.cat([right, wrong]).double()
    ids = torch.tensor([1] * 25 + [2] * 60)
    sides = (
        torch.zeros(1, 2).double(),
        torch.tensor([1]),
        torch.tensor([1]),
        gallery,
        ids,
        torch.full((85,), 2),
    )
    assert cmc_map(*sides, rerank=True)["map"] > cmc_map(*sides)["map"] + 0.1


def test_the_class_re_ranks_too():
    heap, query, _ = shared()
    metric = CMCMeanAveragePrecision(rerank=True)
    for part in torch.randperm(70, generator=torch.Generator().manual_seed(0)).split(16):
        feed(metric, heap, query, part)
    expected = cmc_map(*(v[query] for v in heap), *(v[~query] for v in heap), rerank=True)
    assert metric.compute() == expected
    assert expected["map"] != shared()[2]["map"]


def test_empty_sides_rank_nothing():
    none = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    one = torch.ones(1, 3), torch.ones(1, dtype=torch.long), torch.ones(1, dtype=torch.long)
    assert cmc_map(*one, *none, rerank=True)["unmatched"] == 1
    assert cmc_map(*none, *one, rerank=True)["queries"] == 0
    junk = one[0], -one[1], one[2]
    assert cmc_map(*one, *junk, rerank=True)["unmatched"] == 1


SIZE = """
import torch
from hbo.metrics import cmc_map
draw = torch.Generator().manual_seed(0)
centres = torch.randn(750, 1600, generator=draw)
def part(n):
    who = torch.randint(1, 751, (n,), generator=draw)
    return centres[who - 1] + 2 * torch.randn(n, 1600, generator=draw), who, torch.randint(1, 7, (n,), generator=draw)
found = cmc_map(*part(3368), *part(15913), rerank=True)
print(found["map"], peak())
"""


@pytest.mark.slow
def test_markets_size_fits_into_4_gb():
    """3,368 queries and 15,913 gallery images of 750 identities, with features that separate them well."""
    out, _ = call("-c", PEAK + SIZE)
    average, peak = map(float, out.split())
    assert peak < 4e9
    assert average > 0.9
