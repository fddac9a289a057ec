"""Which arms a question compares: pairs, means and trends as contrasts, and arms that do not fit it."""

import math

import pytest

from hbo.analysis import families
from hbo.analysis.families import Arm
from hbo.analysis.question import Question
from hbo.errors import UserError


def arm(label: str, macs: float, **fields) -> Arm:
    return Arm(label, fields, macs)


NETS = [
    arm("h1", 300e6, net="hbonet"), arm("m1", 305e6, net="mobilenetv2"), arm("h.5", 98e6, width=0.5),
    arm("m.5", 97e6, net="mobilenetv2", width=0.5), arm("h.25", 37e6, width=0.25),
    arm("m.25", 37e6, net="mobilenetv2", width=0.2),
]  # fmt: skip


KS = [arm(f"k={k}", 44e6 + k, k=k) for k in (1, 2, 3)]


def labels(question: Question, arms, baseline=None, kind: str = "each") -> list[str]:
    return [
        line.label
        for family in families.of(question, arms, baseline)
        if family.kind == kind
        for line in family.contrasts
    ]


def test_without_a_question_every_arm_is_compared_with_the_baseline():
    (only,) = families.of(Question(), KS, "k=2")
    assert only.primary
    assert [line.label for line in only.contrasts] == ["k=1 against k=2", "k=3 against k=2"]
    assert only.contrasts[0].weights == {"k=1": 1, "k=2": -1}


@pytest.mark.parametrize("versus", ["net=hbonet against net=mobilenetv2", "net=mobilenetv2"])
def test_arms_are_paired_by_equal_fields_else_by_multiply_adds(versus):
    """h.5 and m.5 differ only in the net, as do h1 and m1; h.25 and m.25 also differ in width, but have equal
    multiply-adds.
    """
    pairs = [("h1", "m1"), ("h.5", "m.5"), ("h.25", "m.25")]
    assert labels(Question(versus=(versus,)), NETS) == [f"{h} against {m}" for h, m in pairs]
    # The default, hbonet, is the baseline of a field alone.
    assert labels(Question(versus=("net",)), NETS) == [f"{m} against {h}" for h, m in pairs]


def test_one_arm_or_two_arms_can_be_named():
    assert labels(Question(versus=("k=1",)), KS) == ["k=2 against k=1", "k=3 against k=1"]
    assert labels(Question(versus=("k=2 against k=1", "k=2 against k=3")), KS) == [
        "k=2 against k=1",
        "k=2 against k=3",
    ]
    assert labels(Question(versus=("k=2 against k=0",)), KS) == []  # k=0 has no runs yet


@pytest.mark.parametrize(
    ("values", "expected"),
    [((1, 2), "k=2 against k=1"), ((2, 1), "k=2 against k=1"), ((3, 2), "k=3 against k=2")],
)
def test_a_field_alone_has_the_same_baseline_whatever_the_judge(values, expected):
    """Its default, 1, else the lowest: rows do not have the order of the file's values."""
    for judge in ("each", "effects"):
        arms = [arm(f"k={k}", 10e6, k=k) for k in values]
        (family,) = families.of(Question(versus=("k",), judge=judge), arms)
        assert [line.label for line in family.contrasts] == [expected]
        a, b = expected.split(" against ")
        assert family.contrasts[0].weights == pytest.approx({a: 1, b: -1})


def test_an_arm_without_a_partner_is_an_error():
    lone = [*NETS, arm("h.1", 12e6, width=0.1)]
    with pytest.raises(UserError, match=r"h.1 has no partner with the same multiply-adds; name each pair"):
        families.of(Question(versus=("net",)), lone)


def test_means_and_trends_are_contrasts():
    asked = Question(versus=("net=hbonet against net=mobilenetv2",), judge="mean", trend="macs")
    mean, each, trend = families.of(asked, NETS)
    assert [family.kind for family in (mean, each, trend)] == ["mean", "each", "trend"]
    assert [family.primary for family in (mean, each, trend)] == [True, False, False]
    assert mean.contrasts[0].weights == pytest.approx(
        {a.label: (1 if a.label[0] == "h" else -1) / 3 for a in NETS}
    )
    # A gain that grows by 2 points per halving of the multiply-adds has slope 2.
    gains = {a.label: -2 * math.log2(a.macs) if a.label[0] == "h" else 0.0 for a in NETS}
    same = [arm(a.label, NETS[i - i % 2].macs, **a.identity) for i, a in enumerate(NETS)]
    gains = {a.label: -2 * math.log2(a.macs) if a.label[0] == "h" else 0.0 for a in same}
    (slope,) = (
        line for family in families.of(asked, same) if family.kind == "trend" for line in family.contrasts
    )
    assert math.fsum(w * gains[label] for label, w in slope.weights.items()) == pytest.approx(2)
    assert math.fsum(slope.weights.values()) == pytest.approx(0, abs=1e-12)
    (over_k,) = (
        f for f in families.of(Question(versus=("k=1",), trend="k", judge="trend"), KS) if f.kind == "trend"
    )
    assert over_k.primary
    assert over_k.contrasts[0].weights == pytest.approx({"k=1": -0.5, "k=3": 0.5})


def test_a_trend_over_a_constant_is_an_error():
    with pytest.raises(UserError, match="trend=epochs: must be a different number"):
        families.of(Question(versus=("k=1",), trend="epochs"), KS)
