"""Metrics against scikit-learn, and the outcome of each image."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from hbo.metrics import Outcomes, classification
from hbo.tasks.classify.spec import CLASSIFY


def filled(num_classes: int, n: int = 200, seed: int = 0) -> tuple[Outcomes, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, num_classes, generator=generator)
    label = (
        torch.randint(0, num_classes, (n,), generator=generator)
        if num_classes != 2
        else (torch.rand(n, generator=generator) > 0.7).long()
    )
    outcomes = Outcomes(num_classes)
    order = torch.randperm(n, generator=generator)
    for part in order.split(17):
        outcomes.update(logits[part], label[part], part)
    return outcomes, logits, label


@pytest.mark.parametrize("num_classes", [2, 5, 10])
def test_classification_metrics_equal_scikit_learns(num_classes):
    outcomes, logits, label = filled(num_classes)
    ours = classification(outcomes.compute(), num_classes)
    prediction = logits.argmax(1)
    assert ours["top1"] == pytest.approx(sk.accuracy_score(label, prediction))
    assert ours["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(label, prediction))
    average = "binary" if num_classes == 2 else "macro"
    assert ours["f1"] == pytest.approx(sk.f1_score(label, prediction, average=average))
    assert ours["loss"] == pytest.approx(
        sk.log_loss(label, logits.double().softmax(1), labels=range(num_classes)), rel=1e-5
    )
    assert ours["majority"] == pytest.approx(np.bincount(label).max() / len(label))
    assert ("top5" in ours) == (num_classes > 5)
    if num_classes > 5:
        assert ours["top5"] == pytest.approx(
            sk.top_k_accuracy_score(label, logits, k=5, labels=range(num_classes))
        )


def test_an_absent_class_is_not_in_the_means_over_classes():
    """As the warning about it says; F1 of the others is scikit-learn's over the labels that occur."""
    outcomes = Outcomes(3)
    outcomes.update(torch.eye(3)[:2] * 9, torch.tensor([0, 1]), torch.tensor([0, 1]))
    found = classification(outcomes.compute(), 3)
    assert (found["balanced_accuracy"], found["f1"]) == (1, 1)
    label, prediction = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 2, 1, 0, 1])
    outcomes = Outcomes(3)
    outcomes.update(torch.eye(3)[prediction] * 9, label, torch.arange(5))
    expected = sk.f1_score(label, prediction, labels=[0, 1], average="macro")
    assert classification(outcomes.compute(), 3)["f1"] == pytest.approx(expected)


def test_outcomes_are_in_the_order_of_the_images():
    outcomes, logits, label = filled(10)
    columns = outcomes.compute()
    assert columns["index"].tolist() == list(range(200))
    assert torch.equal(columns["label"], label)
    assert torch.equal(columns["prediction"], logits.argmax(1))


def test_an_image_counted_twice_is_an_error():
    outcomes = Outcomes(2)
    outcomes.update(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([3, 3]))
    with pytest.raises(RuntimeError, match="twice"):
        outcomes.compute()


def test_f1_names_its_class_where_it_is_one_class():
    row = {"num_classes": 2, "f1": 0.5, "classes": ["functional", "defective"]}
    assert CLASSIFY.report(row) == [("F1 of defective", "50.00 %")]
    assert CLASSIFY.report(row | {"num_classes": 3}) == [("mean F1", "50.00 %")]
    assert CLASSIFY.report({"num_classes": 2, "f1": 0.5}) == [("F1", "50.00 %")]
