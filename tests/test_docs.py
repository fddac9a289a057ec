"""README and the other pages: every printed command parses, the cheap ones run as printed, and every link
resolves.
"""

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, call, make_folder, make_market, make_runs, make_voc

import hbo
from hbo import flags, words
from hbo.__main__ import commands
from hbo.config import content, key_of, resolve
from hbo.sweep import __main__ as sweep

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
# Run as printed: each takes seconds and needs no data. All other commands are only parsed.
CHEAP = (
    "hbo", "hbo.cost", "hbo.evaluate", "hbo.predict", "hbo.data.check", "hbo.analysis.mistakes",
    "hbo.analysis.results", "hbo.analysis.tables",
    "hbo.analysis.study", "hbo.sweep status", "hbo.sweep design",
)  # fmt: skip
LONG = ("hbo.analysis.tables 8", "hbo.analysis.tables 9", "--image FILE")  # tens of seconds; needs a detector
STATUS = {"--gate": 3}  # for a question that the committed rows leave undecided
OTHERS = ("pip", "make", "wandb", "sbatch", "docker", "apptainer", "pytest", "sweeps/agents.sh")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def printed() -> list[str]:
    """The commands of all pages, each once, without comments."""
    blocks = [body for page in PAGES for kind, body in BLOCK.findall(text_of(page)) if kind == "sh"]
    found = [
        shlex.split(line, comments=True) for body in blocks for line in body.replace("\\\n", " ").splitlines()
    ]
    return list(dict.fromkeys(shlex.join(line) for line in found if line))


def cheap(line: str) -> bool:
    return module_of(line)[0] in CHEAP and not any(words in line for words in LONG)


def module_of(line: str) -> tuple[str, list[str]]:
    """`hbo.cost`, and the arguments; a verb of hbo.sweep belongs to the name."""
    name, *rest = shlex.split(line)[2:]
    return (f"{name} {rest[0]}" if name == "hbo.sweep" else name), rest


PYTHON = [line for line in printed() if re.match(r"(\.venv/bin/)?python -m hbo", line)]


class Read(BaseException):
    """The command line was parsed; nothing was done."""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with what the pages' commands name: a trained run, photographs, sets of each kind, sweep
    files, committed rows.
    """
    root = tmp_path_factory.mktemp("here")
    for name in ("sweeps", "ablations"):
        shutil.copytree(ROOT / name, root / name)
    sets = root / "sets"
    make_folder(sets / "imagefolder", {"a": 6, "b": 6}, {"a": 3, "b": 3})
    make_voc(sets / "detectfolder", train=4, test=2)
    make_voc(root / "VOCdevkit" / "VOC2007", train=2, test=1)
    make_market(sets / "marketfolder", train=2, test=2)
    make_market(root / "Market-1501-v15.09.15", train=2, test=2)
    sheet = [
        f"sets/imagefolder/{part}/{name}/{i}.png,{name},{part}"
        for part in ("train", "val")
        for name in "ab"
        for i in range(3)
    ]
    (root / "FILE.csv").write_text("path,label,split\n" + "\n".join(sheet) + "\n")
    shutil.copytree(sets / "imagefolder" / "val" / "a", root / "photos")
    shutil.copy(root / "photos" / "0.png", root / "FILE")
    hbo.train(
        data="digits",
        width=0.1,
        epochs=1,
        limit_batches=2,
        threads=1,
        out=str(root / "runs"),
        wandb="disabled",
    )
    make_runs(root / "runs", "contraction")
    return root


@pytest.fixture
def folder(here, monkeypatch):
    """A function that makes DIR the data that a command expects and replaces STUDY and KEY by this module's
    run.
    """
    monkeypatch.chdir(here)
    monkeypatch.setenv("WANDB_MODE", "disabled")

    (run,) = (here / "runs" / "default").iterdir()

    def placed(line: str) -> tuple[str, list[str]]:
        data = re.search(r"--data (\w+)", line)
        name = data[1] if data and (here / "sets" / data[1]).exists() else "imagefolder"
        Path("DIR").unlink(missing_ok=True)
        Path("DIR").symlink_to(here / "sets" / name / ("train" * ("--val_split" in line)))
        return module_of(
            line.replace("STUDY", "default").replace("KEY", run.name).replace("runs/NAME", "runs/contraction")
        )

    return placed


def entry(name: str):
    """A command's function."""
    name = name.split()[0]
    return importlib.import_module(
        "hbo.__main__" if name == "hbo" else name + ".__main__" * (ROOT / name.replace(".", "/")).is_dir()
    ).main


def test_the_pages_contain_commands():
    assert len(PYTHON) > 50
    assert {module_of(line)[0] for line in PYTHON} >= set(CHEAP)


@pytest.mark.parametrize("line", [line for line in PYTHON if not cheap(line)])
def test_every_printed_command_parses(line, folder, monkeypatch, capsys):
    name, rest = folder(line)
    if name == "hbo.fit":
        with pytest.raises(SystemExit) as stop:
            entry(name)(rest if "--help" in rest else [*rest, "--print_config"])
        assert (stop.value.code, len(capsys.readouterr().out) > 1000) == (0, True)
    elif name.startswith("hbo.sweep"):  # the file, the fields of each run and the question are checked, too
        study, runs = sweep.opened(sweep.parser().parse_args(rest))
        assert len(runs) == len(study.rows)
    else:
        for owner, function in ((words.Parser, "parse_args"), (flags, "given")):
            monkeypatch.setattr(owner, function, reading(getattr(owner, function)))
        with pytest.raises(Read):
            entry(name)(rest)


def reading(function):
    """The same function, but it ends the command once the line is parsed."""

    def read(*args, **kwargs):
        function(*args, **kwargs)
        raise Read

    return read


@pytest.mark.parametrize("line", [line for line in PYTHON if cheap(line)])
def test_every_cheap_command_runs_as_printed(line, folder, capsys):
    name, rest = folder(line)
    expected = next((status for flag, status in STATUS.items() if flag in rest), 0)
    try:
        status = entry(name)(rest) or 0
    except SystemExit as stop:
        status = stop.code or 0
    said = capsys.readouterr()
    assert (status, bool(said.out), "error:" in said.err) == (expected, True, False), said.err


def test_readmes_answer_is_the_studys(capsys):
    """The answer below README's second command, and the figures in the sentence below its first picture."""
    text = text_of(ROOT / "README.md")
    entry("hbo.analysis.study")(["table2_cifar10"])
    said = capsys.readouterr().out
    (answer,) = re.findall(r"(?m)^- mean of .*$", text)
    assert answer in said.splitlines()
    sentence = text[text.index("(ablations/table2_cifar10.png)") : text.index("## Two commands")]
    intervals = re.findall(r"\[[^]]+, [^]]+\]", sentence)
    assert len(intervals) == 2
    assert all(f"points {interval}" in said for interval in intervals)


def test_blocks_are_valid_shell():
    text = "\n".join(body for page in PAGES for kind, body in BLOCK.findall(text_of(page)) if kind == "sh")
    assert (
        subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False).stderr == ""
    )


@pytest.mark.parametrize("line", [line for line in printed() if line not in PYTHON])
def test_arguments_of_other_programs_exist(line):
    program, *rest = shlex.split(line)
    assert program in OTHERS
    if program == "make":
        assert (
            subprocess.run(["make", "-n", *rest], cwd=ROOT, capture_output=True, check=False).returncode == 0
        )
    if program == "pip":
        extras = re.findall(r"\w+", rest[-1])
        assert extras, line
        assert all(re.search(rf"(?m)^{name} = \[", (ROOT / "pyproject.toml").read_text()) for name in extras)
    for word in (program, *rest):
        if word.startswith(("sweeps/", "tests/")) or word.endswith(".def"):
            assert (ROOT / word).is_file()


def test_every_named_command_exists():
    there = commands()
    assert all(there.values())
    for page in PAGES:
        named = {name.rstrip(".") for name in re.findall(r"python -m (hbo[\w.]*)", text_of(page))}
        assert named - {"hbo"} <= there.keys(), page.name


def test_the_list_of_commands_imports_none_of_them():
    code = "import sys, hbo.__main__ as m; m.main([]); print(sorted({'torch', 'numpy', 'yaml', 'hbo.fit'} & sys.modules.keys()))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert out[-1] == "[]"
    assert [line.split()[2] for line in out if line.startswith("python -m")] == sorted(
        commands(), key=lambda n: (n.count("."), n)
    )


def anchors(page: Path) -> set[str]:
    """As GitHub derives them from headings."""
    headings = re.findall(r"(?m)^#+ (.*)$", BLOCK.sub("", text_of(page)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_has_a_target(page):
    for target in re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", text_of(page))):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        to = Path(os.path.normpath(page.parent / path)) if path else page
        assert to.exists(), target
        assert not anchor or anchor in anchors(to), target


def test_without_a_checkout_own_studies_are_read_and_missing_parts_are_named(tmp_path):
    """The package alone, as `pip install .` leaves it, in a folder with a sweep file."""
    shutil.copytree(ROOT / "hbo", tmp_path / "site" / "hbo", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "sweeps").mkdir()
    asks = "Do two exceed one?"
    (tmp_path / "sweeps" / "mine.yaml").write_text(
        f"# {asks}\nname: mine\nmethod: grid\nparameters: {{k: {{values: [1, 2]}}}}\n"
    )
    make_runs(tmp_path / "runs", "contraction", k=[1, 2])
    (tmp_path / "runs" / "contraction").rename(tmp_path / "runs" / "mine")
    for path in (tmp_path / "runs").glob("mine/*/row.json"):
        path.write_text(path.read_text().replace('"study": "contraction"', '"study": "mine"'))
    code = f"""if True:
        import sys; sys.path.insert(0, {str(tmp_path / "site")!r})
        from hbo.analysis import paper, study
        for main, argv in ((study.main, ["contraction"]), (paper.main, []), (study.main, ["mine", "--source", "runs", "--json"])):
            try:
                main(argv)
            except SystemExit as stop:
                assert stop.code == 2"""
    out, err = call("-c", code, cwd=tmp_path)
    assert json.loads(out)["asks"] == asks
    assert [(line[:7], "checkout" in line) for line in err.splitlines()] == [("error: ", True)] * 2


def test_readmes_switch_works_and_keeps_old_keys(tmp_path):
    """Its two pieces, inserted where README says, give another network and a flag; the default's key is
    unchanged.
    """
    field, use = (body for kind, body in BLOCK.findall(text_of(ROOT / "README.md")) if kind == "python")
    shutil.copytree(ROOT / "hbo", tmp_path / "hbo", ignore=shutil.ignore_patterns("__pycache__"))
    source = text_of(tmp_path / "hbo" / "block.py")
    for before, piece in (("\n    def __post_init__", field), ("\n    @staticmethod\n    def _unit", use)):
        assert source.count(before) == 1
        source = source.replace(before, piece + before)
    (tmp_path / "hbo" / "block.py").write_text(source, encoding="utf-8")
    code = """if True:
        from hbo import flags, nets
        from hbo.config import block_of, content, key_of, resolve
        run = flags.parse(["--data", "digits", "--act", "hardswish"])
        net = nets.build("hbonet", block_of(run), width=0.25)
        print(sum(type(m).__name__ == "Hardswish" for m in net.modules()), key_of(content(vars(resolve(data="digits")))))
        print(key_of(content(vars(run))))"""
    number, default, key = call("-c", code, cwd=tmp_path)[0].split()
    assert (int(number) > 10, default) == (True, key_of(content(vars(resolve(data="digits")))))
    assert key != default


def test_readme_is_short():
    lines = text_of(ROOT / "README.md").splitlines()
    assert len(lines) <= 160
    assert max(map(len, lines)) <= 130


def test_one_version():
    (cited,) = re.findall(r"(?m)^version: (.*)$", text_of(ROOT / "CITATION.cff"))
    told = re.findall(r"(?m)^## (\d\S*)", text_of(ROOT / "CHANGELOG.md"))
    assert cited == told[0] == hbo.__version__


def test_the_constraints_meet_what_is_required():
    """Each requirement has a version that satisfies it, and no other package is listed."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    text = (ROOT / "pyproject.toml").read_text()
    # The other extras are for separate environments.
    (extras,) = re.findall(r'(?m)^dev = \["hbo\[([\w,]+)\]"', text)
    lists = [
        re.search(rf"(?ms)^{name} = \[(.*?)\](?: *#[^\n]*)?$", text)
        for name in ("dependencies", "dev", *extras.split(","))
    ]
    words = [
        word
        for found in lists
        if found
        for word in re.findall(r'"([^"]+)"', re.sub(r"#[^\n\"]*\n", "\n", found[1]))
    ]
    asked = [Requirement(word) for word in words if not word.startswith("hbo[")]
    assert len(asked) > 30
    for one in asked:
        assert one.specifier.contains(pinned[canonicalize_name(one.name)]), one
