"""CMC and mean average precision: hand-computed cases, a brute-force oracle, ties, two real processes, the
real size.
"""

import math
import socket
from fractions import Fraction

import pytest
import torch
import torch.multiprocessing as mp
from conftest import PEAK, call
from torch import Tensor

from hbo.errors import UserError
from hbo.metrics import CMCMeanAveragePrecision, Rankings, cmc_map
from hbo.tasks.reid.metrics import CHUNK, RANKS, TOP, ranked

Side = tuple[Tensor, Tensor, Tensor]  # features, identities, cameras


def side(*images: tuple[list[float] | float, int, int]) -> Side:
    """Images as (feature, identity, camera); a number is a one-dimensional feature."""
    features, ids, cameras = zip(*images, strict=True) if images else ([], [], [])
    rows = [f if isinstance(f, list) else [f] for f in features]
    return (
        torch.tensor(rows).float().reshape(len(rows), -1 if rows else 1),
        torch.tensor(ids).long(),
        torch.tensor(cameras).long(),
    )


# A query at 0 with identity 1 and camera 1, and a gallery on a line: map, rank-1, rank-5, computed by hand.
CASES = {
    "the first is right": ([(1, 1, 2), (2, 2, 2)], 1.0, 1, 1),
    "the second is right": ([(2, 1, 2), (1, 2, 2)], 1 / 2, 0, 1),
    # Matches at 1 and 3: (1/1 + 2/3) / 2. Market's original program, with trapezoids under the curve, would
    # give 19/24.
    "two of them": ([(1, 1, 2), (2, 2, 2), (3, 1, 3)], (1 + 2 / 3) / 2, 1, 1),
    "its own camera is left out": ([(1, 1, 1), (2, 2, 2), (3, 1, 2)], 1 / 2, 0, 1),
    "another's image of that camera is not": ([(1, 2, 1), (3, 1, 2)], 1 / 2, 0, 1),
    "junk is left out": ([(1, -1, 2), (2, 1, 2)], 1.0, 1, 1),
    "junk of its own camera too": ([(1, -1, 1), (2, 1, 2)], 1.0, 1, 1),
    "a distractor takes a place": ([(1, 0, 2), (2, 1, 2)], 1 / 2, 0, 1),
    "the sixth": ([(6, 1, 2), *((i, 2, 2) for i in range(1, 6))], 1 / 6, 0, 0),
    "left out before places are counted": (
        [(6, 1, 2), (1, 1, 1), (2, -1, 3), *((i, 2, 2) for i in (3, 4, 5))],
        1 / 4,
        0,
        1,
    ),
    "equally far: the gallery's first": ([(1, 1, 2), (-1, 2, 2)], 1.0, 1, 1),
    "and the other way round": ([(1, 2, 2), (-1, 1, 2)], 1 / 2, 0, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_cases_worked_by_hand(case):
    gallery, average, first, fifth = CASES[case]
    found = cmc_map(*side((0.0, 1, 1)), *side(*gallery))
    assert found["map"] == pytest.approx(average, abs=1e-12)
    assert (found["rank1"], found["rank5"]) == (first, fifth)
    assert (found["queries"], found["unmatched"]) == (1, 0)


@pytest.mark.parametrize(
    ("places", "minp"), [([1], 1), ([1, 2, 3], 1), ([4], 1 / 4), ([1, 5], 2 / 5), ([2, 3, 10], 3 / 10)]
)
def test_the_inverse_negative_penalty_is_of_the_last_match(places, minp):
    """Ye et al. 2021: the number of matches over the rank of the last one; here with junk and same-camera
    images in between.
    """
    right = [(n, 1, 2) for n in places]
    wrong = [(n, 2, 2) for n in range(1, 12) if n not in places]
    assert cmc_map(*side((0.0, 1, 1)), *side(*wrong, *right, (0.5, -1, 2), (1.5, 1, 1)))[
        "minp"
    ] == pytest.approx(minp, abs=1e-12)
    # The other query's only match is the 12th.
    two = (
        side((0.0, 1, 1), (0.0, 9, 1)),
        side(*wrong, *right, (12, 9, 2)),
    )
    assert cmc_map(*two[0], *two[1])["minp"] == pytest.approx((minp + 1 / 12) / 2, abs=1e-12)


def test_queries_without_a_match_are_not_averaged_but_counted():
    # 7 is not in the gallery, 3 only in its own camera.
    queries = side((0.0, 1, 1), (0.0, 7, 1), (0.0, 3, 1), (0.0, 0, 1), (0.0, -1, 1))
    gallery = side((1, 1, 2), (2, 3, 1), (3, 0, 2), (4, -1, 2))
    found = cmc_map(*queries, *gallery)
    assert found == {
        "map": 1.0,
        "minp": 1.0,
        **{f"rank{n}": 1.0 for n in RANKS},
        "queries": 5,
        "unmatched": 4,
    }
    each = ranked(*queries, *gallery)
    assert each["first"].tolist() == [1, 0, 0, 0, 0]
    assert [math.isnan(a) for a in each["average_precision"].tolist()] == [False, True, True, True, True]
    assert each["top"][0].tolist() == [0, 1, 2, *[-1] * (TOP - 3)]
    assert each["top"][2].tolist() == [0, 2, *[-1] * (TOP - 2)]  # the image of its own camera is left out
    none = cmc_map(*side((0.0, 7, 1)), *gallery)
    assert math.isnan(none["map"])
    assert none["unmatched"] == 1


def test_cosine_depends_only_on_the_angle():
    queries = side(([1.0, 0.0], 1, 1))
    gallery = side(([100.0, 1.0], 1, 2), ([1.0, 1.0], 2, 2))  # almost parallel but far away; and near
    assert cmc_map(*queries, *gallery)["rank1"] == 0
    assert cmc_map(*queries, *gallery, metric="cosine")["rank1"] == 1
    gallery = side(([0.3, 0.954], 1, 2), ([0.0, 0.0], 2, 2))  # a zero vector has cosine 0
    assert cmc_map(*queries, *gallery, metric="cosine")["rank1"] == 1


@pytest.mark.parametrize(("change", "word"), [
    ({"metric": "manhattan"}, "metric='manhattan': choose from euclidean, cosine"),
    ({"query_ids": torch.zeros(4, dtype=torch.long)}, "query: .* 4 ids"),
    ({"gallery_cameras": torch.zeros(1, dtype=torch.long)}, "gallery: .* 1 cameras"),
    ({"gallery_features": torch.zeros(2, 3)}, "1 per query, 3 per gallery image"),
    ({"query_features": torch.tensor([[math.nan]])}, "infinite or NaN"),
])  # fmt: skip
def test_shapes_that_do_not_fit_are_errors(change, word):
    names = [f"{part}_{what}" for part in ("query", "gallery") for what in ("features", "ids", "cameras")]
    given = dict(zip(names, (*side((0.0, 1, 1)), *side((1.0, 1, 2), (2.0, 2, 2))), strict=True))
    with pytest.raises(UserError, match=word):
        cmc_map(**{**given, **change})


# ------------------------------------------------------------ against brute force


def brute_force(queries: Side, gallery: Side, metric: str) -> dict[str, float]:
    """One query at a time in plain Python, with distances as exact fractions."""
    listed = lambda part: list(zip(*(values.tolist() for values in part), strict=True))
    averages, penalties, firsts, unmatched = [], [], [], 0
    for feature, identity, camera in listed(queries):
        left = []
        for place, (theirs, who, where) in enumerate(listed(gallery)):
            if who == -1 or (who == identity and where == camera):
                continue
            left.append((far(feature, theirs, metric), place, who == identity and who > 0))
        left.sort(key=lambda entry: entry[:2])
        places = [n for n, (_, _, right) in enumerate(left, start=1) if right]
        if not places:
            unmatched += 1
            continue
        averages.append(sum(Fraction(i, n) for i, n in enumerate(places, start=1)) / len(places))
        penalties.append(Fraction(len(places), places[-1]))
        firsts.append(places[0])
    n = len(firsts)
    shares = {f"rank{r}": sum(first <= r for first in firsts) / n for r in RANKS}
    return {
        "map": float(sum(averages) / n),
        "minp": float(sum(penalties) / n),
        **shares,
        "queries": n + unmatched,
        "unmatched": unmatched,
    }


def far(a: list[float], b: list[float], metric: str) -> Fraction:
    """An exact value that ranks like the distance: its square, or the negated cosine's signed square."""
    a, b = [Fraction(x) for x in a], [Fraction(x) for x in b]
    if metric == "euclidean":
        return sum(((x - y) ** 2 for x, y in zip(a, b, strict=True)), Fraction(0))
    dot = sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))
    return -dot * abs(dot) / sum(y * y for y in b) if any(b) else Fraction(0)


def random_sides(seed: int, exact: bool) -> tuple[Side, Side]:
    """Identities of -1 to 6 on 3 cameras; `exact`: small integers, so that distances are often equal."""
    draw = torch.Generator().manual_seed(seed)
    parts = []
    for n in (
        int(torch.randint(1, 12, (1,), generator=draw)),
        int(torch.randint(12, 60, (1,), generator=draw)),
    ):
        feature = torch.randn(n, 4, generator=draw)
        feature = (2 * feature).round() if exact else feature
        parts.append(
            (feature, torch.randint(-1, 7, (n,), generator=draw), torch.randint(1, 4, (n,), generator=draw))
        )
    parts[0][1][0], parts[1][1][0], parts[0][2][0], parts[1][2][0] = 1, 1, 1, 2  # at least one match
    return parts[0], parts[1]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_against_brute_force_on_random_features(metric):
    ties = unmatched = 0
    for seed in range(60):
        # With integers, different features can have equal cosines, which rounding then decides: only copies
        # are tied.
        queries, gallery = random_sides(seed, exact=metric == "euclidean" and seed % 2 == 0)
        copies = torch.randint(
            len(gallery[0]), (len(gallery[0]) // 3,), generator=torch.Generator().manual_seed(seed)
        )
        gallery[0][: len(copies)] = gallery[0][copies]
        expected = brute_force(queries, gallery, metric)
        found = cmc_map(*queries, *gallery, metric=metric)
        assert found == pytest.approx(expected, abs=1e-12), seed
        unmatched += found["unmatched"]
        ties += sum(
            len(gallery[0]) - len({far(q, g, metric) for g in gallery[0].tolist()})
            for q in queries[0].tolist()
        )
    assert ties > 1000
    assert unmatched > 20


def test_copies_of_an_image_are_tied_in_any_order():
    """A plain matrix product gives equal columns different last bits at different positions; at this size it
    does.
    """
    draw = torch.Generator().manual_seed(0)
    n, size = 4003, 1600
    feature = torch.randn(n, size, generator=draw)
    order = torch.randperm(n, generator=draw)
    first, second = order[: n // 2].sort().values, order[n // 2 : n // 2 * 2]
    feature[second] = feature[first]
    queries = torch.randn(20, size, generator=draw)
    ids, cameras = torch.arange(1, n + 1), torch.zeros(n, dtype=torch.long)
    best = ranked(queries, torch.ones(20, dtype=torch.long), cameras[:20] + 1, feature, ids, cameras)["top"]
    twin = torch.arange(n)
    twin[first], twin[second] = second, first
    for top in best.tolist():
        for a, b in zip(top[::2], top[1::2], strict=True):
            if twin[a] != a:
                assert (a, b) == (min(a, b), int(twin[a])), "two copies in the gallery's order, side by side"
            else:
                break  # the only image without a copy


def test_the_size_of_chunks_changes_nothing():
    draw = torch.Generator().manual_seed(1)
    n = 2 * CHUNK + 5
    part = lambda n: (
        torch.randn(n, 3, generator=draw),
        torch.randint(1, 20, (n,), generator=draw),
        torch.randint(1, 4, (n,), generator=draw),
    )
    queries, gallery = part(n), part(300)
    whole = ranked(*queries, *gallery)
    for i in (0, CHUNK - 1, CHUNK, n - 1):
        one = ranked(*(values[i : i + 1] for values in queries), *gallery)
        for name, values in one.items():
            assert torch.equal(values[0], whole[name][i]), name


# ------------------------------------------------------------ the metric class


def shared(seed: int = 3) -> tuple[Side, Tensor, dict[str, float]]:
    """70 images, some of which are queries, and what `cmc_map` gives for them."""
    draw = torch.Generator().manual_seed(seed)
    feature = torch.randn(70, 5, generator=draw).round()  # ties, decided by the order of the gallery
    heap = feature, torch.randint(-1, 6, (70,), generator=draw), torch.randint(1, 4, (70,), generator=draw)
    query = torch.rand(70, generator=draw) < 0.3
    return heap, query, cmc_map(*(v[query] for v in heap), *(v[~query] for v in heap))


def feed(metric: Rankings, heap: Side, query: Tensor, indices: Tensor) -> None:
    feature, identity, camera = (values[indices] for values in heap)
    metric.update(feature, identity, camera, query[indices], indices)


def test_the_class_gives_what_the_function_gives_in_any_batches():
    heap, query, expected = shared()
    metric = CMCMeanAveragePrecision()
    for part in torch.randperm(70, generator=torch.Generator().manual_seed(0)).split(16):
        feed(metric, heap, query, part)
    assert metric.compute() == expected
    metric.reset()
    feed(metric, heap, query, torch.arange(70))
    assert metric.compute() == expected
    feed(metric, heap, query, torch.tensor([5]))
    with pytest.raises(RuntimeError, match="counted twice"):
        metric.compute()


def test_rankings_name_images_by_their_index():
    heap, query, _ = shared()
    metric = Rankings()
    feed(metric, heap, query, torch.arange(70))
    found = metric.compute()
    assert found["query"].tolist() == query.nonzero().flatten().tolist()
    far = torch.cdist(heap[0], heap[0])
    for q, top in zip(found["query"].tolist(), found["top"].tolist(), strict=True):
        allowed = [
            i
            for i in range(70)
            if not query[i] and heap[1][i] != -1 and (heap[1][i], heap[2][i]) != (heap[1][q], heap[2][q])
        ]
        assert top == sorted(allowed, key=lambda i: (far[q, i].item().__round__(5), i))[:TOP]


def _part(rank: int, port: int, given: list[int], out: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    heap, query, _ = shared()
    metric = CMCMeanAveragePrecision()
    feed(metric, heap, query, torch.tensor(given if rank == 0 else sorted({*range(70)} - {*given})))
    torch.save(metric.compute(), f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("given", [list(range(0, 70, 2)), [1, 5, 60]], ids=["halves", "unequal shares"])
def test_two_processes_give_what_one_gives(given, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(_part, (port, given, str(tmp_path)), nprocs=2, start_method="forkserver")
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == shared()[2]


SIZE = """
import torch
from hbo.metrics import cmc_map
draw = torch.Generator().manual_seed(0)
part = lambda n, low: (torch.randn(n, 1600, generator=draw), torch.randint(low, 751, (n,), generator=draw), torch.randint(1, 7, (n,), generator=draw))
found = cmc_map(*part(3368, 1), *part(19732, -1))
print(found["map"], found["rank1"], peak())
"""


@pytest.mark.slow
def test_markets_size_fits_into_4_gb():
    """3,368 queries, 19,732 gallery images, 1,600 random features; one gallery image in 750 matches by
    chance.
    """
    out, _ = call("-c", PEAK + SIZE)
    average, first, peak = map(float, out.split())
    assert peak < 4e9
    assert 0.001 < average < 0.003
    assert 0 <= first < 0.006


def test_a_feature_that_is_not_finite_gives_no_metric():
    heap, query, _ = shared()
    metric = CMCMeanAveragePrecision()
    feed(
        metric,
        (heap[0].clone().index_fill_(0, torch.tensor([3]), math.nan), *heap[1:]),
        query,
        torch.arange(70),
    )
    assert all(math.isnan(metric.compute()[name]) for name in ("map", "rank1", "rank5", "rank10", "rank20"))
