"""About 500 generated command lines, configs and sweep files for all commands: each is accepted, or is a
one-line error with exit status 2.

The generator has a fixed seed, so that failures repeat; nothing is trained.
"""

import contextlib
import io
import json
import random
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from hbo import cost, evaluate, export, flags
from hbo.analysis import claims, detections, figures, floors, ranks, report, results, study, tables
from hbo.bench.__main__ import main as bench
from hbo.config import Run
from hbo.sweep import loading, timing
from hbo.sweep.__main__ import main as sweep

NAMES = [f.name for f in fields(Run)]
# Words as written in YAML and in a shell, grouped by kind.
WORDS = [
    "0", "1", "2", "-1", "1.0", "1.5", "1e-3", "1e3", "1e400", "-0", "010", "0x10", "0b1", "1:30", "1_000",
    "9" * 30, "9" * 5000, "1e", "+1",
    ".nan", "nan", ".inf", "-.inf", "inf", "null", "~", "None", "", " ", "yes", "no", "on", "off", "true",
    "False", "TRUE", "y",
    "2024-05-01", "2024-13-45", "2024-05-01 10:00:00", "[1, 2]", "[]",
    "[1", "{a: 1}", "{1, 2, 3}", "{}", "{" * 2000 + "}" * 2000, "[" * 3000,
    "{value: 1}", "!!int x", "!!python/object:os.system x", "!!set {a}", "!!binary aGk=", "&a [*a]", "*a",
    "? x", "- 1", "a: b: c", "%", "@x", "`",
    "'",
    '"', "a\tb", "naïve", "\ud800", "a\0b", "../..", "~nobody-of-that-name/x", "/dev/null/x", "/", ".", "x" * 5000, "k=2", "k=010 lr=x",
    "hbonet", "timm:", "timm:no such", "torchvision:resnet18", "elpv", "digits", "imagefolder", "voc",
    "marketfolder", "detect", "reid", "cpu", "offline",
    "nearest", "bilinear", "360,480", "480,360", ",", "step",
]  # fmt: skip
OWN = ["--json", "--help=1", "--to", "--file", "--csv", "--count", "--set", "--workers", "--only", "--score", "--image", "--source", "--metric",
       "--format", "--study", "--calibration", "--plain", "--int8", "--slurm", "--seeds", "-x", "--", "--kk", "--batch_size", "--"]  # fmt: skip
KEYS = [
    "value",
    "values",
    "probabilities",
    "distribution",
    "min",
    "max",
    "q",
    "mu",
    "sigma",
    "a",
    "b",
    "parameters",
    "vals",
    "1",
]
KINDS = ["uniform", "int_uniform", "q_uniform", "log_uniform", "q_log_uniform_values", "inv_log_uniform", "normal", "beta", "categorical", "constant",
         "log_normal", "log_uniform_values", "categorical_w_probabilities"]  # fmt: skip
TOP = [
    "name",
    "description",
    "method",
    "metric",
    "command",
    "run_cap",
    "parameters",
    "early_terminate",
    "metod",
]


def some_flags(draw: random.Random) -> list[str]:
    argv = []
    for _ in range(draw.randint(0, 4)):
        flag = f"--{draw.choice(NAMES)}" if draw.random() < 0.85 else draw.choice(OWN)
        way = draw.random()
        argv += (
            [f"{flag}={draw.choice(WORDS)}"]
            if way < 0.3
            else [flag, draw.choice(WORDS)]
            if way < 0.9
            else [flag]
        )
    return argv


def some_config(draw: random.Random, folder: Path) -> list[str]:
    lines = [f"{draw.choice(NAMES)}: {draw.choice(WORDS)}" for _ in range(draw.randint(0, 4))]
    if draw.random() < 0.3:
        text = json.dumps({draw.choice(NAMES): draw.choice(WORDS) for _ in lines})
        return ["--config", text if draw.random() < 0.8 else text[:-1]]
    path = folder / "config.yaml"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    return ["--config", str(path)]


def some_sweep(draw: random.Random, folder: Path) -> list[str]:
    lines = [f"method: {draw.choice(['grid', 'grid', 'random', 'bayes', draw.choice(WORDS)])}", "parameters:"]
    lines += ["  data: {value: digits}", f"  out: {{value: {folder / 'runs'}}}"]
    for name in draw.sample(NAMES, draw.randint(0, 3)):
        if name in ("data", "out"):
            continue
        pairs = {
            draw.choice(KEYS): draw.choice([*WORDS, "[1, 2]", "0", "1", "1000"])
            for _ in range(draw.randint(1, 3))
        }
        if draw.random() < 0.3:
            pairs = {"distribution": draw.choice(KINDS), "min": draw.choice(WORDS), "max": draw.choice(WORDS)}
        if draw.random() < 0.4:
            pairs = {"value": draw.choice(WORDS)}
        lines.append(f"  {name}: {{{', '.join(f'{key}: {value}' for key, value in pairs.items())}}}")
    for _ in range(draw.randint(0, 2)):
        lines.append(f"{draw.choice(TOP)}: {draw.choice(WORDS)}")
    if draw.random() < 0.5:
        lines.append(f"run_cap: {draw.choice(['2', '3', *WORDS])}")
    path = folder / "fuzzed.yaml"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    more = ["--set", f"{draw.choice(NAMES)}={draw.choice(WORDS)}"] if draw.random() < 0.2 else []
    return [str(path), *more, *(["--count", draw.choice(WORDS)] if draw.random() < 0.2 else [])]


def refused_or_accepted(main: Callable[[list[str]], object], argv: list[str]) -> None:
    """No traceback; an error is one line."""
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            main(argv)
        except SystemExit as stop:
            status = stop.code
        except BaseException as error:
            raise AssertionError(f"{argv!r:.600}: {type(error).__name__}: {error!s:.300}") from error
    said = err.getvalue().strip()
    assert status in (0, None, 2), f"{argv!r:.600}: exit {status}: {said:.300}"
    if status == 2:
        assert said.startswith("error: "), f"{argv!r:.600}: {said:.300}"
        assert len(said.splitlines()) == 1, f"{argv!r:.600}: {said:.300}"
        assert len(said) < 2000, f"{argv!r:.600}"


def fit(argv: list[str]) -> object:
    return flags.parse([*argv, "--print_config"])


@pytest.mark.parametrize("seed", range(10))
def test_flags_and_configs(seed, tmp_path):
    draw = random.Random(seed)
    for i in range(20):
        refused_or_accepted(fit, some_flags(draw) + (some_config(draw, tmp_path) if i % 2 else []))


@pytest.mark.parametrize("seed", range(10))
def test_sweep_files(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "calibrate", lambda run: 1e-3)  # times a network
    monkeypatch.setattr(loading, "bottleneck", lambda runs: "")
    draw = random.Random(100 + seed)
    for i in range(18):
        refused_or_accepted(sweep, ["plan" if i % 9 == 0 else "status", *some_sweep(draw, tmp_path)])


@pytest.mark.parametrize("seed", range(2))
def test_costs(seed, tmp_path):
    draw = random.Random(200 + seed)
    for _ in range(12):
        refused_or_accepted(cost.main, some_flags(draw))


@pytest.mark.parametrize("main", [evaluate.main, export.main, floors.main])
def test_commands_with_all_flags(main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = random.Random(300)
    for _ in range(12):
        refused_or_accepted(main, [draw.choice([*WORDS, str(tmp_path)]), *some_flags(draw)])


@pytest.mark.parametrize("main", [results.main, study.main, tables.main, claims.main, figures.main, report.main, ranks.main, detections.main, bench,
                                  sweep])  # fmt: skip
def test_commands_with_their_own_flags(main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an empty folder
    draw = random.Random(400)
    for _ in range(8):
        argv = [draw.choice(WORDS)] * draw.randint(0, 2) + [draw.choice(OWN), draw.choice(WORDS)]
        refused_or_accepted(main, argv)
