"""`--slurm` with stand-ins for SLURM's commands that record their calls: arrays within the cluster's limit,
and no job submitted twice.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_pool import study, write

from hbo.runs.lock import Lock
from hbo.sweep import plan, queued, snapshot
from hbo.sweep.__main__ import main
from hbo.sweep.study import read

pytest.importorskip("submitit")
SBATCH = """import pathlib, sys
here = pathlib.Path(__file__).parent
n = len(list(here.glob("*.sh"))) + 1
text = pathlib.Path(sys.argv[1]).read_text()
(here / f"{n}.sh").write_text(text)
print(f"Submitted batch job {100 * n}")
"""
FIELDS = {"data": "digits", "threads": 1, "accelerator": "cpu", "wandb": "disabled"}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster whose arrays have at most three tasks; `squeue` prints the file `squeue.txt`."""
    tools = tmp_path / "bin"
    tools.mkdir()
    say = lambda name, line: (tools / name).write_text(f"#!/bin/sh\n{line}\n")
    say("sbatch", f"exec {sys.executable} {tools}/sbatch.py $1")
    (tools / "sbatch.py").write_text(SBATCH)
    say("scontrol", 'echo "MaxArraySize            = 3"')
    say("squeue", f"cat {tools}/squeue.txt")
    say("srun", "exit 1")
    say(
        "sacct",
        "echo 'JobID|State'; echo '100_0|CANCELLED by 0'; echo '100_1|FAILED'; echo '100_[2]|CANCELLED by 0'",
    )
    (tools / "squeue.txt").write_text("")
    for path in tools.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return tools


def ask(*words: object, expect: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words)])
    assert stop.value.code == expect


def lines(cluster: Path, word: str) -> list[str]:
    """The value of an option for each array, in order of submission; empty if not given."""
    scripts = [path.read_text().splitlines() for path in sorted(cluster.glob("*.sh"))]
    of = lambda script: [line.partition("=")[2] for line in script if line.startswith(f"#SBATCH --{word}=")]
    return ["".join(of(script)) for script in scripts]


def test_job_arrays_respect_the_clusters_limits(cluster, tmp_path, capsys):
    """Seven rows in arrays of three, three and one (no array); two at a time in each, and each array after
    the previous one.
    """
    file = write(tmp_path / "seven.yaml", **FIELDS, out=str(tmp_path / "runs"), seed=list(range(7)))
    asked = ("run", file, "--slurm", "time=10")
    ask(*asked, "--max_parallel", 2)
    assert lines(cluster, "array") == ["0-2%2", "0-2%2", ""]
    assert lines(cluster, "dependency") == ["", "afterany:100", "afterany:200"]
    notes = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/*/slurm.json")]
    jobs = sorted(note["job"] for note in notes)
    assert jobs == [*(f"{n}_{i}" for n in (100, 200) for i in range(3)), "300"]
    (cluster / "squeue.txt").write_text("\n".join(f"{job} PENDING" for job in jobs))
    capsys.readouterr()
    ask(*asked)
    assert capsys.readouterr().out == "nothing is left to submit\n"
    assert len(list(cluster.glob("*.sh"))) == 3
    # No limit by default: submitit's own would be 256.
    ask("run", file, "--slurm", "time=10", "--set", "seed=[7,8,9]")
    assert lines(cluster, "array")[3:] == ["0-2%3"]
    assert lines(cluster, "dependency")[3:] == [""]


def test_several_runs_per_device_are_one_job(cluster, tmp_path):
    file = write(tmp_path / "five.yaml", **FIELDS, out=str(tmp_path / "runs"), seed=list(range(5)))
    ask("run", file, "--slurm", "time=10", "--runs_per_device", 2)
    assert (lines(cluster, "array"), lines(cluster, "cpus-per-task")) == (["0-2%3"], ["2"])
    notes = [json.loads(path.read_text())["job"] for path in (tmp_path / "runs").glob("*/*/slurm.json")]
    assert sorted(notes) == ["100_0", "100_0", "100_1", "100_1", "100_2"]


def test_if_squeue_fails_nothing_is_submitted(cluster, tmp_path, capsys):
    file = write(tmp_path / "two.yaml", **FIELDS, out=str(tmp_path / "runs"), seed=[0, 1])
    ask("run", file, "--slurm", "time=10")
    (cluster / "squeue").write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n"
    )
    capsys.readouterr()
    ask("run", file, "--slurm", "time=10", expect=2)
    assert "Unable to contact slurm controller; nothing is submitted" in capsys.readouterr().err
    assert len(list(cluster.glob("*.sh"))) == 1
    ask("status", file)
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "2 runs: 2 unknown"
    assert "the state of 2 jobs is unknown" in said.err
    # The same if it exits with 0 after an error, or prints something else.
    for line in (
        "echo 'slurm_load_jobs error: Socket timed out' >&2",
        "echo 100_0 PENDING; echo down for repair",
    ):
        (cluster / "squeue").write_text(f"#!/bin/sh\n{line}\n")
        ask("run", file, "--slurm", "time=10", expect=2)
        assert "nothing is submitted" in capsys.readouterr().err
    assert len(list(cluster.glob("*.sh"))) == 1
    # It is different if squeue fails because SLURM has forgotten the job.
    (cluster / "squeue").write_text(f"#!/bin/sh\necho 'slurm_load_jobs error: {queued.GONE}' >&2\nexit 1\n")
    ask("run", file, "--slurm", "time=10")
    assert len(list(cluster.glob("*.sh"))) == 2


def test_jobs_of_a_file_that_was_changed_since_are_counted(cluster, tmp_path, capsys):
    """They are queued under rows that are no longer in the file; nothing else would name them."""
    fields = FIELDS | {"out": str(tmp_path / "runs"), "seed": [0, 1]}
    file = write(tmp_path / "two.yaml", **fields)
    ask("run", file, "--slurm", "time=10")
    (cluster / "squeue.txt").write_text("100_0 PENDING\n100_1 PENDING\n200_0 PENDING\n200_1 PENDING")
    file = write(tmp_path / "two.yaml", **fields | {"k": 2})
    ask("run", file, "--slurm", "time=10")
    capsys.readouterr()
    ask("status", file)
    said = capsys.readouterr().out
    assert "2 runs: 2 queued" in said
    assert f"{tmp_path / 'runs' / 'two'} has 2 runs that are not in this list" in said


def test_two_simultaneous_calls_submit_once(cluster, tmp_path, capsys):
    file = write(tmp_path / "two.yaml", **FIELDS, out=str(tmp_path / "runs"), seed=[0, 1])
    other = Lock(tmp_path / "runs" / "two" / "slurm").acquire()
    ask("run", file, "--slurm", "time=10", expect=75)
    other.release()
    assert not list(cluster.glob("*.sh"))


def test_a_job_that_ended_before_its_first_row_is_reported(cluster, tmp_path, capsys):
    """Cancelled before it began, failed with a message, and gone without one."""
    file = write(tmp_path / "three.yaml", **FIELDS, out=str(tmp_path / "runs"), seed=[0, 1, 2])
    ask("run", file, "--slurm", "time=10")
    note = next(
        n
        for n in map(lambda p: json.loads(p.read_text()), (tmp_path / "runs").glob("*/*/slurm.json"))
        if n["job"] == "100_1"
    )
    Path(note["log"]).write_text(
        "a warning\nerror: no space left on device\nTraceback:\nRuntimeError: exit status 2\n"
    )
    capsys.readouterr()
    ask("status", file)
    said = capsys.readouterr().out
    assert "failed: job 100_0 ended (CANCELLED) before its first row: it left no log" in said
    assert "failed: job 100_1 ended (FAILED) before its first row: no space left on device" in said
    assert "failed: job 100_2 ended (CANCELLED) before its first row: it left no log" in said
    ask("run", file, "--slurm", "time=10")  # and is submitted again
    assert lines(cluster, "array") == ["0-2%3", "0-2%3"]


def test_options_that_slurm_does_not_take_are_errors(cluster, tmp_path, capsys):
    file = write(tmp_path / "one.yaml", **FIELDS, out=str(tmp_path / "runs"))
    for words in (
        ("--max_failures", "0.1"),
        ("--retries", "2"),
        ("--workers", "2"),
        ("--slurm", "parallel=3,time=10", "--max_parallel", "2"),
    ):
        ask("run", file, "--slurm", "time=10", *words, expect=2)
    ask("run", file, "--slurm", "", expect=2)  # a variable of the shell that is not set: nothing trains here
    assert "--slurm : must be KEY=VALUE" in capsys.readouterr().err
    ask("run", file, "--slurm", "time=10,time=20", expect=2)
    assert "time is set twice" in capsys.readouterr().err
    for limit in ("time=0", "time=2", "time=00:10:00,notice=600"):  # it would save as soon as it starts
        ask("run", file, "--slurm", limit, expect=2)
        assert "must exceed the notice of" in capsys.readouterr().err
    ask("run", file, "--max_parallel", "2", expect=2)
    assert "on this machine use --workers" in capsys.readouterr().err
    assert study(tmp_path / "runs") == {}


def test_a_job_runs_the_code_it_was_submitted_with(tmp_path):
    """It runs the copy, not the working directory or the package that made it; the row records its digest."""
    code = snapshot.take(tmp_path / "study")
    assert snapshot.take(tmp_path / "study") == code
    decoy = tmp_path / "here" / "hbo"
    decoy.mkdir(parents=True)
    (decoy / "__init__.py").write_text("raise ImportError('the wrong one')")
    show = (
        "from hbo.runs import code; print(code.PACKAGE, code.digest(), code.git_commit(), *code.command('x'))"
    )
    (code / "probe.py").write_text(show)
    command = [sys.executable, code / "start.py", "-u", "-m", "probe"]
    done = subprocess.run(command, cwd=decoy.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    from hbo.runs import code as own

    words = done.stdout.split()
    assert words[:3] == [str(code / "hbo"), code.name, str(own.git_commit())]
    assert words[3:6] == [sys.executable, str(code / "start.py"), "x"]
    assert own.digest() == code.name
    inside = {path.relative_to(code / "hbo") for path in own.files_of(code / "hbo")}
    assert inside == {path.relative_to(own.PACKAGE) for path in own.files_of(own.PACKAGE)}


def test_the_process_that_waits_for_a_run_imports_nothing_heavy():
    """submitit's, in each job: torch would take seconds and hundreds of megabytes."""
    code = "import sys, hbo.sweep.job; print(sorted({'torch', 'numpy', 'pandas'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_sweep_with_force_is_repeated_once(tmp_path):
    """An already finished row does not count; the row of the next training does."""
    from hbo.runs import rows

    file = write(tmp_path / "one.yaml", **FIELDS, out=str(tmp_path / "runs"))
    (entry,) = plan.entries(read(file, {"force": True}))
    entry.home.mkdir(parents=True)
    row = {"state": "done", "seconds": 1.0, "top1": 0.5, "started": "2026-01-01T00:00:00Z"}
    rows.write(entry.home, row)
    plan.refresh(entry)
    assert entry.state == "done"
    plan.run_again(entry)
    for _ in range(2):
        assert entry.state == "missing"
        plan.refresh(entry)
    rows.write(entry.home, row | {"started": "2026-01-01T00:00:09Z"})
    plan.refresh(entry)
    plan.run_again(entry)
    assert entry.state == "done"
    assert entry.fields["force"] is True  # as passed to `hbo.fit`
