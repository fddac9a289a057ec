"""hbo.analysis.floors: colour histograms against numpy's, untrained features against a hand-made network."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_market
from test_reid import batch_of, reid

from hbo.tasks import build
from hbo.tasks.build import open_data


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return make_market(tmp_path_factory.mktemp("set") / "market", train=6, test=5, views=8)


def test_colour_histograms_are_numpys():
    from hbo.analysis.floors import channel_histograms, joint_histogram

    images, *_ = batch_of(3)
    for image, joint, each in zip(images, joint_histogram(images), channel_histograms(images), strict=True):
        pixels = image.reshape(3, -1).T.numpy()
        counts = np.histogramdd(pixels, bins=[np.arange(0, 257, 32)] * 3)[0] / len(pixels)
        np.testing.assert_allclose(joint, counts.ravel())
        levels = [np.histogram(pixels[:, c], bins=np.arange(0, 257, 4))[0] / len(pixels) for c in range(3)]
        np.testing.assert_allclose(each, np.concatenate(levels))


def test_floors_use_the_initial_weights_of_a_run(market):
    """Their features come from an untrained network with the run's seed, built as `hbo.fit` builds it."""
    import pytorch_lightning as pl

    from hbo.analysis.floors import floors, table
    from hbo.metrics import cmc_map

    run = reid(data_dir=str(market), batch=28)
    found = floors(run, ["hbonet:0.1"], [0, 1])
    assert [row["features"] for row in found] == [
        "joint histogram",
        "histogram a channel",
        *["hbonet:0.1, untrained"] * 2,
    ]
    pl.seed_everything(1, verbose=False)
    data = open_data(run)
    task = build.make(reid(data_dir=str(market), width=0.1, seed=1), data).eval()
    images, shown, _ = data.val.__getitems__([(0, i) for i in range(len(data.val))])
    with torch.no_grad():
        feature = task(images)
    identity, camera, query = shown.unbind(1)
    sides = [part[which] for which in (query == 1, query == 0) for part in (feature, identity, camera)]
    expected = cmc_map(*sides)
    assert {name: found[3][name] for name in ("map", "rank1", "queries")} == pytest.approx(
        {name: expected[name] for name in ("map", "rank1", "queries")}, abs=1e-3
    )
    assert found[2]["map"] != found[3]["map"]
    frame = table(pd.DataFrame(found).assign(data="marketfolder", resolution=64, aspect=2)).frame
    assert list(frame["n"]) == [1, 1, 2]


@pytest.mark.parametrize(
    "flag", [["--width", "0.5"], ["--seed", "3"], ["--backbone_checkpoint", "best.ckpt"]]
)
def test_fields_that_floors_would_ignore_are_errors(flag, capsys):
    from hbo.analysis.floors import main

    with pytest.raises(SystemExit):
        main(flag)
    assert capsys.readouterr().err.startswith(
        f"error: {flag[0][2:]}={flag[1]}: floors are untrained networks"
    )
