"""Which claims of the paper hold here: each figure comes from the rows and the published cells."""

import copy

import pytest
from conftest import ROOT
from scipy import stats

from hbo.analysis import claims, holds, results
from hbo.errors import UserError

FILE = claims.read()


def test_the_committed_page_follows_from_the_rows():
    assert (ROOT / "papers" / "hbonet" / "HOLDS.md").read_text() == holds.page(ROOT / "ablations")


def test_a_line_has_the_published_difference_and_welchs_of_the_rows():
    two = "two contraction units exceed one"
    only = FILE | {"here": [{"says": "it", "of": [two], "study": "contraction", "lines": "k=2 against k=1"}]}
    line = holds.holds(ROOT / "ablations", only).frame.iloc[0]
    rows = results.load(ROOT / "ablations", "contraction")
    a, b = (100 * rows[(rows["k"] == k) & (rows["state"] == "done")]["top1"] for k in (2, 1))
    assert line["in the paper"] == "+1.0 top-1"
    assert line["difference"].split()[0] == f"{a.mean() - b.mean():+.1f}"
    assert (line["n"], line["verdict"]) == ("6 seeds", "undecided")
    assert stats.ttest_ind(a, b, equal_var=False).pvalue > 0.05
    done = rows[rows["state"] == "done"]
    assert line["hours"] == f"{done['seconds'].sum() / 3600:.1f}"


def test_several_claims_are_one_line_with_their_mean_and_range():
    of = [
        "HBONet exceeds MobileNetV2 at about 37 M multiply-adds",
        "HBONet exceeds MobileNetV2 at about 97 M multiply-adds",
    ]
    line = holds.holds(
        ROOT / "ablations", FILE | {"here": [{"says": "it", "of": of, "needs": "ImageNet"}]}
    ).frame.iloc[0]
    assert line["in the paper"] == "+3.7 (+2.4 to +5.0) top-1"  # table 2: 57.3 - 52.3 and 67.0 - 64.6
    assert (line["verdict"], line["to settle it"]) == ("not tested", "ImageNet")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"of": ["HBONet is best"], "needs": "x"}, "'HBONet is best' is not among its comparisons"),
        (
            {"of": ["two contraction units exceed one"], "study": "contraction", "lines": "k=9"},
            "no judged line 'k=9'",
        ),
    ],
)
def test_an_unknown_claim_is_an_error(entry, said):
    wrong = copy.deepcopy(FILE) | {"here": [{"says": "it"} | entry]}
    with pytest.raises(UserError, match=said):
        holds.holds(ROOT / "ablations", wrong)
