"""A study by its name or by where its runs are."""

import pytest
from conftest import ROOT, make_runs

from hbo.analysis import places
from hbo.errors import UserError


def test_a_folder_a_table_and_a_name(tmp_path, monkeypatch):
    runs = make_runs(tmp_path / "runs", "contraction", "mobilenetv2", seed=[0])
    assert places.studies(["contraction", "mobilenetv2"], "ablations") == (["contraction", "mobilenetv2"], "ablations")
    assert places.studies([f"{runs}/contraction"], "ablations") == (["contraction"], runs / "contraction")
    assert places.studies([str(runs)], "ablations") == (["contraction", "mobilenetv2"], runs)
    assert places.studies([f"{runs}/contraction", f"{runs}/mobilenetv2/"], "ablations") == (
        ["contraction", "mobilenetv2"],
        runs,
    )
    table = ROOT / "ablations" / "contraction.csv"
    assert places.studies([str(table)], "x") == (["contraction"], table)
    monkeypatch.chdir(runs)
    assert places.studies(["contraction"], "ablations")[0] == ["contraction"]


def test_places_apart_and_places_without_rows_are_refused(tmp_path):
    one, other = (make_runs(tmp_path / name, "contraction", seed=[0]) for name in ("a", "b"))
    for words in ([f"{one}/contraction", f"{other}/contraction"], [f"{one}/contraction", "mobilenetv2"]):
        with pytest.raises(UserError, match="lie beside each other"):
            places.studies(words, "ablations")
    (tmp_path / "empty").mkdir()
    for word in ("empty", "nowhere"):
        with pytest.raises(UserError, match=word):
            places.studies([f"{tmp_path}/{word}"], "ablations")
