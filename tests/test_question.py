"""Which words are a question, and which are errors."""

import pytest

from hbo.analysis.question import fields_of_side, parse
from hbo.errors import UserError


def test_a_networks_name_is_its_net():
    """As in the names of arms, which a page prints."""
    assert fields_of_side("hbonet k=3") == {"net": "hbonet", "k": 3}
    assert fields_of_side("MobileNetV2 width=0.5") == {"net": "mobilenetv2", "width": 0.5}
    assert fields_of_side("torchvision:resnet18") == {"net": "torchvision:resnet18"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"versus": "k=2 agains k=1"}, "'agains' must be FIELD=VALUE"),
        ({"versus": "kk=1"}, "no field kk; did you mean k"),
        ({"versus": "k=two"}, "k='two': must be a whole number"),
        ({"versus": "k=1 against k=2 against k=3"}, "'against' is repeated"),
        ({"versus": []}, "must be text or a list of text"),
        ({"versus": 3}, "must be text or a list of text"),
        ({"margin": "x"}, "margin='x': must be percentage points"),
        ({"margin": 0}, "margin=0: must be percentage points"),
        ({"margin": float("nan")}, "margin=nan: must be percentage points"),
        ({"metrik": "top1"}, "metrik: no such key; did you mean metric"),
        ({"metric": "loss"}, "metric='loss': choose from top1"),
        ({"judge": "all"}, "judge='all': choose from each, mean, trend"),
        ({"judge": "trend"}, "judge=trend: needs primary.trend"),
        ({"trend": "net"}, "trend='net': choose from"),
        (["k=1"], "must be a mapping of metric, versus"),
        (None, "must be a mapping of metric, versus"),
    ],
)
def test_wrong_questions_are_errors(content, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        parse(content)
