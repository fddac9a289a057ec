"""Other programs' names of a flag, a value or a network give an error with the name used here, or with what
to do instead.
"""

import contextlib
import csv
import importlib
import os
import re
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from hbo import flags
from hbo.__main__ import commands
from hbo.__main__ import main as overview
from hbo.analysis import claims, detections, figures, notebooks, paper, ranks, report, results, study, tables
from hbo.analysis.question import fields_of_side
from hbo.analysis.report import page
from hbo.config import Run, checked, resolve
from hbo.deploy.runtimes import RUNTIMES
from hbo.errors import UserError
from hbo.export import main as export
from hbo.nets import build
from hbo.runs import summary
from hbo.sweep import study as sweep_file
from hbo.sweep.__main__ import main as sweep
from hbo.tasks.classify.spec import report as report_lines
from hbo.words import INSTEAD, NAMES, OFF, VALUES


def said(main, argv, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    err = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    return err


@pytest.mark.parametrize(("argv", "word"), [
    (["--batch_size", "3"], "it is --batch here"), (["--batch-size=3"], "it is --batch here"),
    (["--learning_rate", "1"], "it is --lr here"), (["--lerning_rate", "1"], "did you mean --lr?"),
    (["--model", "x"], "it is --net here"), (["--arch", "x"], "it is --net here"),
    (["--gpus", "2"], "it is --devices here"),
    (["--resume"], "the same command resumes"), (["--pretrained"], "it is --backbone_checkpoint here"),
    (["--num_classes", "3"], "it comes from the data"),
    (["--lr_scheduler", "cosine"], "it is --schedule here"),
    (["--weight-decay", "0"], "it is --weight_decay here"), (["--wandb", "none"], "it is disabled here"),
    (["--wandb", "off"], "it is disabled here"),
    (["--accelerator", "cuda"], "it is gpu here"), (["--data", "folder"], "it is imagefolder here"),
    (["--net", "resnet18"], "it is torchvision:resnet18 here"),
    (["--config", '{"batch_size": 3}'], "batch_size: no such field; it is batch here"),
    (["--no_residual"], "use --residual false"), (["--no-flip"], "use --flip none"),
    (["--data-dir", ".", "--resolutoin", "64"], "; --resolutoin: no such flag; did you mean --resolution?"),
    (["--epoch", "3"], "--epoch: no such flag; did you mean --epochs?"),
    (["--net", "torchvison:resnet18"], "did you mean torchvision:resnet18?"),
    (["--kk", "2"], "did you mean --k?"), (["--upsample", "bilnear"], "did you mean bilinear?"),
    (["--device", "2"], "use --accelerator cpu or gpu, and --devices for their number"),
    (["--data", "digits", "--download"], "download=True: is not used by data=digits with weights=random"),
    (["--k", "two", "--epoch", "3"], "k='two': must be a whole number; also --epoch: no such flag"),
    (["--epoch", "3", "--seed", "--k", "two"], "--seed: needs a value; also k='two': must be a whole number; also --epoch"),
])  # fmt: skip
def test_common_typing_errors_get_an_answer(argv, word, capsys):
    assert word in said(flags.parse, argv, capsys)


@pytest.mark.parametrize(("main", "argv", "word"), [
    (export, ["KEY", "--format", "onnx"], "--format: no such flag; it is --to here"),
    (export, ["KEY", "--to", "tflite"], "it is litert here"), (export, [], "missing: checkpoint"),
    (export, ["KEY", "--to", "onx"], "did you mean onnx?"),
    (flags.parse, ["--version"], "python -m hbo --version"),
    (flags.parse, ["--strides", "9"], "choose from '16,32', '8,16,32', '4,8,16,32'"),
    (overview, ["fit", "--help"], "it is python -m hbo.fit"), (overview, ["studdy"], "it is python -m hbo.analysis.study"),
    (sweep, ["plan", "x.yaml", "--detct", "1"], "--detct: no such flag; did you mean --detect?"),
    (sweep, ["plan", "x.yaml", "--detec", "1"], "--detec: no such flag; did you mean --detect?"),
    (study.main, [], "missing: study, one of backbones_cifar10, "),
    (overview, ["qwert"], "no such command"), (sweep, [], "one of plan, run, status, design"),
])  # fmt: skip
def test_words_of_a_command_get_an_answer(main, argv, word, capsys):
    assert word in said(main, argv, capsys)


def test_a_pair_in_other_words_is_shown_in_ours():
    with pytest.raises(UserError, match="write 'k=2 against k=1'"):
        fields_of_side("k=2 vs k=1")


def test_they_get_the_same_answer_in_a_sweep_and_in_python(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("method: grid\nparameters: {learning_rate: {value: 0.1}}\n")
    with pytest.raises(UserError, match="it is lr here"):
        sweep_file.read(path)
    with pytest.raises(UserError, match=r"--set kk: no such field; did you mean k\?"):
        sweep_file.read(ROOT / "sweeps" / "pairing.yaml", {"kk": 3})
    with pytest.raises(UserError, match="it is net here"):
        resolve(model="hbonet")
    pytest.importorskip("timm")
    with pytest.raises(UserError, match="it is timm:resnet18 here"):
        build("timm:resnet18.a1_in1k", width=None)


def test_the_table_names_existing_flags():
    fields = set(Run.__dataclass_fields__)
    assert set(NAMES.values()) - {"to"} <= fields  # `hbo.export`'s
    assert not fields & {*NAMES, *INSTEAD}
    for name, value in OFF.items():
        assert not checked(name, value) or value in ("none", "disabled")
    for (name, _), value in VALUES.items():
        if name == "to":
            assert value in RUNTIMES
            continue
        with pytest.raises(UserError, match=f"it is {value} here"):
            resolve(**{name: next(word for (n, word), v in VALUES.items() if (n, v) == (name, value))})


@pytest.mark.parametrize(("main", "before"), [
    (claims.main, []), (detections.main, ["x"]), (figures.main, ["x"]), (notebooks.main, ["x"]),
    (paper.main, []), (ranks.main, ["x"]),
    (report.main, ["x"]), (results.main, ["x"]), (study.main, ["x"]), (tables.main, ["6"]),
    (sweep, ["plan", "x"]),
])  # fmt: skip
def test_every_command_answers_a_wrong_flag_in_one_line(main, before, capsys):
    assert "--no_such_flag: no such flag" in said(main, [*before, "--no_such_flag"], capsys)


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_and_each_of_its_verbs_has_help(name, capsys):
    """A single % in one help text breaks the whole page."""
    package = (ROOT / name.replace(".", "/")).is_dir()
    main = importlib.import_module(name + ".__main__" * package).main

    def page(*verb: str) -> str:
        with contextlib.suppress(SystemExit):
            main([*verb, "--help"])
        out, err = capsys.readouterr()
        assert out
        assert not err
        return out

    verbs = re.search(r"^  \{([\w,]+)\}|^python -m \S+ ([\w|]+): ", page(), re.M)
    for verb in re.split("[,|]", verbs[1] or verbs[2]) if verbs else ():
        assert page(verb).startswith("usage: ")


# Python runs a module of this name at its start. Ctrl-C comes with the first of these imports, which all commands have.
CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
def press(event, args):
    if event == "import" and args[0] in ("pandas", "torch", "hbo.words") and not pressed:
        pressed.append(args[0])
        signal.raise_signal(signal.SIGINT)
pressed = []
sys.addaudithook(press)
"""


@pytest.mark.parametrize("name", sorted(commands()))
def test_ctrl_c_while_a_command_imports_is_a_line(name, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(CTRL_C)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    process = subprocess.run([sys.executable, "-m", name], env=env, capture_output=True, text=True)
    assert process.stderr.startswith("interrupted")
    assert process.stderr.count("\n") == 1
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)  # a shell says 130 to both


def test_the_summary_warns_of_what_accuracy_hides():
    row = {"top1": 0.5, "top5": 0.9, "balanced_accuracy": 0.3, "majority": 0.45, "num_classes": 7}
    assert report_lines(row) == [
        ("top-1", "50.00 %"),
        ("top-5", "90.00 %"),
        ("balanced accuracy", "30.00 %"),
        ("largest class", "45.00 %"),
    ]
    assert ("F1", "10.00 %") in report_lines({**row, "num_classes": 2, "f1": 0.1})
    assert ("mean F1", "10.00 %") in report_lines({**row, "f1": 0.1})


@pytest.mark.parametrize(("row", "said"), [
    ({"top1": 0.1, "majority": 0.102}, "top-1 is not above the largest class (10.2 %): it may have learned nothing; train longer"),
    ({"top1": 0.2, "majority": 0.102}, None),
    ({"top1": 0.6, "majority": 0.7, "class_weights": "balanced", "balanced_accuracy": 0.6, "num_classes": 2}, None),
])  # fmt: skip
def test_the_summary_says_if_nothing_was_learned(row, said, tmp_path):
    found = next(line for line in results.load(ROOT / "ablations", "few_photographs").to_dict("records"))
    found = {**found, "classifier_epochs": 1, "class_weights": "none", **row}
    lines = [line.strip().split("  ", 1) for line in summary.of(found, tmp_path).splitlines()[1:]]
    shown = {name: value.strip() for name, value in lines}
    assert shown.get("note") == said
    assert shown["classifier only"] == "1 epoch before these"


def test_runs_that_predict_one_class_do_not_stop_the_page(tmp_path):
    """All arms at 50.00 %: no difference, zero standard deviation, and an unknown detectable difference."""
    for name in ("contraction", "contraction_uniform"):
        with open(ROOT / "ablations" / f"{name}.csv", newline="") as file:
            lines = [
                {**line, "top1": "0.5", "balanced_accuracy": "0.5", "f1": "0.0"}
                for line in csv.DictReader(file)
            ]
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
        for it in study.settings(name, source=tmp_path / f"{name}.csv"):
            text = page(it)
            assert "0.00 points would have been found" not in text
            assert "the detectable difference is unknown" in text
