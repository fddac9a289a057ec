"""One rule for values: a flag, --config, a sweep, a variant and Python accept and reject the same values;
each error is one line.
"""

import dataclasses
import json
from datetime import date
from pathlib import Path

import pytest

from hbo import config, cost, flags
from hbo.config import resolve
from hbo.errors import UserError
from hbo.sweep import parameters, study
from hbo.sweep.__main__ import main as sweep

HEAD = "method: grid\nparameters:\n  data: {value: digits}\n"


def by_flag(folder: Path, name: str, text: str) -> object:
    return getattr(config.resolve(**flags.given(flags.make_parser("hbo.fit", ""), [f"--{name}", text])), name)


def by_config(folder: Path, name: str, text: str) -> object:
    (folder / "config.yaml").write_text(f"{name}: {text}\n")
    return getattr(resolve(**flags.read_config(str(folder / "config.yaml"))), name)


def by_json(folder: Path, name: str, text: str) -> object:
    """As W&B's agent passes it when YAML left it as text."""
    return getattr(resolve(**flags.read_config(json.dumps({name: text}))), name)


def by_sweep(folder: Path, name: str, text: str) -> object:
    (folder / "s.yaml").write_text(f"method: grid\nparameters:\n  {name}: {{value: {text}}}\n")
    (row,) = study.read(folder / "s.yaml").rows
    return getattr(resolve(**row), name)


def by_variant(folder: Path, name: str, text: str) -> object:
    return getattr(resolve(variant=f"{name}={text}"), name)


def by_python(folder: Path, name: str, text: str) -> object:
    return getattr(resolve(**{name: text}), name)


WAYS = [by_flag, by_config, by_json, by_sweep, by_variant, by_python]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "text", "value"), [
    ("epochs", "30", 30), ("epochs", "30.0", 30), ("epochs", "3e1", 30), ("lr", "1e-3", 1e-3),
    ("lr", "1", 1.0), ("workers", "null", None),
    ("workers", "2", 2), ("residual", "false", False), ("residual", "no", False),
    ("upsample", "bilinear", "bilinear"), ("width", "1", 1.0),
])  # fmt: skip
def test_valid_values_are_valid_everywhere(way, name, text, value, tmp_path):
    found = way(tmp_path, name, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "text"), [
    ("epochs", "010"), ("epochs", "-010"), ("epochs", "0x10"), ("epochs", "1:30"), ("epochs", "1.5"),
    ("epochs", "true"), ("epochs", "null"),
    ("epochs", "[1]"), ("epochs", "{1,2}"), ("epochs", "two"), ("epochs", "2024-05-01"),
    ("epochs", "9" * 5000), ("epochs", "9" * 30),
    ("lr", "010"), ("lr", "null"), ("lr", ".nan"), ("lr", ".inf"), ("lr", "nan"), ("lr", "1e400"),
    ("lr", "9" * 400), ("lr", "yes"), ("lr", "{a: 1}"),
    ("residual", "1"), ("residual", "null"), ("residual", "maybe"), ("upsample", "1"), ("upsample", "no"),
    ("upsample", "null"),
    ("kernel", "9" * 21 ), ("resolution", "9" * 12), ("width", "1e300"), ("divisor", "9" * 30),
    ("threads", "9" * 12),
    ("out", "~nobody-of-that-name/x"), ("data_dir", "~nobody-of-that-name/x"),
    ("cache_dir", "~nobody-of-that-name/x"),
])  # fmt: skip
def test_invalid_values_are_errors_everywhere(way, name, text, tmp_path):
    with pytest.raises(UserError) as refused:
        way(tmp_path, name, text)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(("name", "value", "word"), [
    ("k", True, "k=True: must be a whole number"),
    ("k", {1: None, 2: None}, "a list is [a, b]"),
    ("k", {1, 2}, "must be a whole number"),
    ("lr", None, "lr=None: must be a number"),
    ("net", 7, "net=7: must be text; put it in quotes"),
    ("net", False, "YAML reads yes, no, on and off"),
    ("wandb", False, "put the word in quotes"),
    ("study", date(2024, 5, 1), "YAML reads it as a date"),
    ("out", "a\0b", "must be text"),
    ("epochs", "010", "without the leading zero"),
    ("threads", None, "must be a whole number"),
    ("val_split", "20%", "val_split='20%': must be a number; write 0.2"),
])  # fmt: skip
def test_errors_show_the_value_as_yaml_reads_it(name, value, word):
    with pytest.raises(UserError) as refused:
        resolve(**{name: value})
    assert word in str(refused.value)


def test_a_number_has_one_form_in_a_run_made_from_another():
    run = resolve(data="digits")
    assert dataclasses.replace(run, lr=1).key() == dataclasses.replace(run, lr=1.0).key()
    with pytest.raises(UserError, match="k=True"):
        dataclasses.replace(run, k=True)


WRONG = [
    (HEAD + "  k: {1, 2, 3}\n", "parameters.k.1"),
    (HEAD + "  study: {value: 2024-05-01}\n", "reads it as a date"),
    (HEAD + "  study: {value: 2024-13-45}\n", "month"),
    (HEAD + "  epochs: {value: 010}\n", "line 4: bad YAML, YAML reads 010 as 8"),
    (HEAD + "  k: {values: [1, 2], probabilities: 0.5}\n", "probabilities=0.5: must be a list"),
    (HEAD + "  k: {values: [1, 2], probabilities: [a, b]}\n", "probabilities"),
    (HEAD + "  k: {values: [1, 2], probabilities: [2, -1]}\n", "in [0, 1]"),
    (HEAD + "  k: {values: {1, 2}}\n", "must be a list"),
    (HEAD + "  k: {values: [[1], [2]]}\n", "parameters.k=[1]"),
    (HEAD + "  k: {value: 1}\n  k: {value: 2}\n", "'k' is repeated"),
    ('{"method": "grid", "method": "grid"}', "'method' is repeated"),
    (HEAD + "  k: {distribution: [a]}\n", "no such distribution"),
    (HEAD + "  lr: {distribution: log_uniform, min: 1, max: 1000}\n", "log_uniform_values"),
    (HEAD + "  lr: {distribution: uniform, min: true, max: 2}\n", "min=True: must be a number"),
    (HEAD + "  lr: {distribution: uniform, min: .nan, max: 2}\n", "min=nan: must be a number"),
    (HEAD + "  seed: {distribution: int_uniform, min: 1.5, max: 3}\n", "whole numbers"),
    (HEAD + "  out: {value: ~nobody-of-that-name/x}\n", "of an unknown user"),
    (HEAD + "  k: {value: " + "{" * 2000 + "}" * 2000 + "}\n", "nested too deeply"),
    (HEAD + "  k: &a {values: [*a]}\n", "must be a whole number"),
    (HEAD + "  1: {value: 2}\n", "parameters.1: no such field"),
    (HEAD + "command:\n", "command: must end with"),
    (HEAD + "command: 5\n", "command: must end with"),
    (HEAD + "run_cap: yes\n", "run_cap=True"),
    (HEAD + "run_cap: 010\n", "reads 010 as 8"),
    (HEAD + "  seed: {min: 0, max: 3000000}\n", "more than 100000 runs"),
    (
        HEAD.replace("grid", "random") + "  lr: {distribution: log_normal, mu: 1000}\nrun_cap: 2\n",
        "out of range",
    ),
    (
        HEAD.replace("grid", "random")
        + "  lr: {distribution: q_uniform, min: 0, max: 1, q: 1.0e-320}\nrun_cap: 2\n",
        "out of range",
    ),
    (HEAD.replace("grid", "random") + "run_cap: 3000000\n", "more than 100000"),
    ("", "must be a mapping"),
]


@pytest.mark.parametrize(("text", "word"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_sweep_file_is_one_line(text, word, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        sweep(["status", str(tmp_path / "s.yaml")])
    err = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert len(err.splitlines()) == 1
    assert word in err


def test_bounds_without_a_decimal_point_are_numbers():
    """1e-4 is text in YAML 1.1, yet W&B's own examples use it."""
    assert parameters.distribution("lr", {"min": "1e-4", "max": "1e-1"}) == {
        "min": 1e-4,
        "max": 1e-1,
        "distribution": "uniform",
    }
    assert parameters.distribution("k", {"min": 1, "max": 3})["distribution"] == "int_uniform"


def test_a_cap_is_checked_before_the_grid_is_listed(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + "  seed: {min: 0, max: 3000000000}\n  k: {min: 0, max: 2000000000}\nrun_cap: 3\n")
    assert [(row["k"], row["seed"]) for row in study.read(path).rows] == [(0, 0), (0, 1), (0, 2)]


def test_set_reads_values_like_a_flag(tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(HEAD)
    for text, word in (
        ("seed=010", "reads 010 as 8"),
        ("k={a: 1}", "must be a whole number"),
        ("seed=[]", "at least one"),
    ):
        with pytest.raises(SystemExit):
            sweep(["status", str(tmp_path / "s.yaml"), "--set", text])
        assert word in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        sweep(["status", str(tmp_path / "s.yaml"), "--set", "study=2024-05-01", "--set", f"out={tmp_path}"])
    assert stop.value.code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--k=1,2", "k='1,2': must be a whole number; for several: python -m hbo.sweep run FILE --set k=[1,2]"),
        ("--width=.5,1", "; for several: python -m hbo.sweep run FILE --set width=[.5,1]"),
        ("--upsample=nearest,bilinear", "; for several: python -m hbo.sweep run FILE --set upsample=[nearest,bilinear]"),
        ("--val_split=0,2", "val_split='0,2': must be a number; did you mean 0.2?"),
        ("--k=1,", "k='1,': must be a whole number"),
        ("--upsample=near", "did you mean nearest?"),
    ],
)  # fmt: skip
def test_a_run_takes_one_value_and_a_sweep_several(text, said, capsys):
    with pytest.raises(SystemExit) as stop:
        flags.parse([text])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.endswith(f"{said}\n")
    assert ("did you mean" in err) == ("did you mean" in said)


def test_a_network_too_large_to_count_is_an_error(capsys):
    for argv in (
        ["--width", "1e300"],
        ["--kernel", "99999999999999999999999"],
        ["--task", "reid", "--aspect", "1e-300"],
    ):
        with pytest.raises(SystemExit) as stop:
            cost.main(argv)
        assert stop.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
