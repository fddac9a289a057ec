"""hbo.analysis.reproduce: a row trained again is bit-identical, or the differences are named."""

import base64
import json

import numpy as np
import pytest
from conftest import call, only_row

from hbo.analysis import reproduce, results
from hbo.analysis.csv_rows import to_csv
from hbo.errors import UserError

TINY = ("--data", "digits", "--width", "0.1", "--epochs", "2", "--threads", "1")


@pytest.mark.slow
def test_a_row_trained_again_has_the_same_bits_and_an_edited_one_is_named(tmp_path):
    call("hbo.fit", *TINY, "--out", tmp_path / "runs", "--study", "one")
    row, _ = only_row(tmp_path / "runs")
    table, points = (read(str(tmp_path / "runs"), "one") for read in (results.load, results.curves))
    (tmp_path / "saved").mkdir()
    results.save(table, points, tmp_path / "saved" / "one.csv")
    again = ("one", "--source", tmp_path / "saved", "--out", tmp_path / "again")
    said, _ = call("hbo.analysis.reproduce", *again)
    assert (
        said == f"{row['key']} hbonet, seed 0: the same bits (2 epochs, {row['val_images']} images, top1)\n"
    )

    points.loc[points["epoch"] == 1, "val/loss"] += 1e-7
    bits = np.frombuffer(base64.b64decode(row["correct"]), np.uint8).copy()
    bits[0] ^= 0b101
    table["correct"] = base64.b64encode(bits.tobytes()).decode()
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "one.csv").write_text(to_csv(table))
    (tmp_path / "edited" / "one_curves.csv").write_text(to_csv(points))
    elsewhere = ("one", "--source", tmp_path / "edited", "--out", tmp_path / "again")
    said, _ = call("hbo.analysis.reproduce", *elsewhere, "--json", expect=1)  # trained already
    (found,) = json.loads(said)
    assert (found["same"], found["images_off"], found["first_epoch_off"]) == (False, 2, 1)
    assert found["first_off"] == {"val/loss": pytest.approx(-1e-7, rel=0.1)}
    assert f"2 of {row['val_images']} images classified differently" in reproduce.line(found)

    _, error = call("hbo.analysis.reproduce", *again[:-1], tmp_path / "runs", expect=2)
    assert f"out={tmp_path / 'runs'}: contains this very row" in error
    _, error = call("hbo.analysis.reproduce", *again, "--k", "2", expect=2)
    assert "k: comes from the row; leave it out" in error
    _, error = call("hbo.analysis.reproduce", *again, "--key", "ab", expect=2)
    assert "key=ab: no finished row has this key" in error
    _, error = call("hbo.analysis.reproduce", *again, "--seed", "5", expect=2)
    assert "seed=5: no finished row has this seed; there are 0" in error


def test_the_first_seed_of_each_arm_is_chosen():
    rows = [
        {"key": f"{net}{seed}", "state": state, "seed": seed, "net": net, "data": "digits"}
        for net in ("hbonet", "mobilenetv2")
        for seed, state in ((3, "done"), (1, "done"), (0, "failed"))
    ]
    chosen = reproduce.choose(rows, None, None, None)
    assert [(name, row["key"]) for name, row in chosen] == [
        ("hbonet", "hbonet1"),
        ("mobilenetv2", "mobilenetv21"),
    ]
    assert [row["key"] for _, row in reproduce.choose(rows, None, 3, 1)] == ["hbonet3"]
    assert [row["key"] for _, row in reproduce.choose(rows, ["hbonet3"], None, None)] == ["hbonet3"]
    with pytest.raises(UserError, match="seed=0: no finished row has this seed; there are 1, 3"):
        reproduce.choose(rows, None, 0, None)
