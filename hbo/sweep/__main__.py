"""python -m hbo.sweep plan|run|status|design FILE: many runs from one W&B sweep file, without a server.

python -m hbo.sweep plan sweeps/contraction.yaml                    # keys, costs, states, hours
python -m hbo.sweep plan sweeps/contraction.yaml --detect 1.0       # the seeds that detect 1 point
python -m hbo.sweep plan sweeps/contraction.yaml --freeze           # records the question before the runs
python -m hbo.sweep design fraction sweeps/factorial.yaml           # 54 runs of its 162
python -m hbo.sweep run sweeps/contraction.yaml --set data=cifar10 --set data_dir=DIR
python -m hbo.sweep run sweeps/table2.yaml --slurm partition=gpu,gpus=1,time=24:00:00
python -m hbo.sweep status sweeps/contraction.yaml
"""

import argparse
import sys
from contextlib import nullcontext
from types import NoneType
from typing import Any

from hbo import files
from hbo.errors import UserError, one_line
from hbo.runs import summary
from hbo.sweep.study import read
from hbo.values import load, number, whole
from hbo.words import Parser


def main(argv: list[str] | None = None) -> None:
    """The command line. Exit status: 0, 1 if a run failed, 2 for a wrong file or flag, 128 + n after signal
    n.
    """
    args = parser().parse_args(argv)
    with one_line(), files.one_look() if args.verb == "plan" else nullcontext():
        status = {"plan": plan, "run": run, "status": show, "design": design}[args.verb](args)
    raise SystemExit(status)


def parser() -> Parser:
    """The verbs and their flags."""
    whole = Parser(prog="python -m hbo.sweep", description="A W&B sweep file without a server.")
    verbs = whole.add_subparsers(dest="verb", required=True)
    about = {
        "plan": "Print every run before anything starts: key, costs, state, hours.",
        "run": "Train missing and unfinished runs, here or on SLURM; a second call resumes.",
        "status": "Print each run's state and result.",
    }
    for verb, text in about.items():
        sub = verbs.add_parser(verb, help=text, description=text)
        sub.add_argument("file", help="A sweep file in W&B's format, such as sweeps/contraction.yaml.")
        sub.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE", dest="sets",
            help="Replace a parameter of the file in all runs; FIELD=[A,B] sweeps over it. May be repeated.",
        )  # fmt: skip
        sub.add_argument("--count", type=positive, help="Runs of a random sweep. [the file's run_cap]")
        sub.add_argument("--random_seed", type=int, help="Seed of a random sweep. [0]")
        if verb != "status":
            sub.add_argument(
                "--workers",
                type=positive,
                help="Runs at a time. [one per GPU group, else cores / threads per run]",
            )
            sub.add_argument(
                "--runs_per_device", type=positive, default=1, metavar="N",
                help="Runs that share a GPU (with --slurm, a job and its GPU). [1]",
            )  # fmt: skip
        sub.add_argument("--devices_per_run", type=positive, help="The same as --set devices=M.")
        sub.add_argument(
            "--threads", type=positive, help="The same as --set threads=T: CPU threads of a run."
        )
        if verb == "plan":
            _add_plan(sub)
        if verb == "run":
            _add_run(sub)
    _add_design(verbs)
    return whole


def _add_plan(sub: Any) -> None:
    sub.add_argument(
        "--json",
        action="store_true",
        help="Print only JSON: an object per run; with --detect or --freeze {runs, detect, frozen}.",
    )
    sub.add_argument(
        "--detect", type=points, metavar="POINTS",
        help="Print the seeds needed to detect a difference of POINTS percentage points with 80 %% power, and"
        " what the file's own seeds detect.",
    )  # fmt: skip
    sub.add_argument(
        "--sd", type=points, metavar="POINTS",
        help="With --detect or --freeze: the standard deviation of a run."
        " [from finished rows of the same data and protocol]",
    )  # fmt: skip
    sub.add_argument(
        "--freeze", action="store_true",
        help="Write what is judged, the seeds and the looks into OUT/STUDY/frozen.json; the study's page says"
        " whether the plan was followed.",
    )  # fmt: skip
    _add_looks(sub, "--freeze")


def _add_run(sub: Any) -> None:
    sub.add_argument(
        "--until", choices=("decided",),
        help="Add seeds to the arms of open comparisons until all are decided; judge at --looks only"
        " [6,10,16,24].",
    )  # fmt: skip
    _add_looks(sub, "--until")
    sub.add_argument(
        "--retries",
        type=natural,
        help="Restarts of a run that crashed. [1]",
    )
    sub.add_argument(
        "--max_failures", type=failures, metavar="N",
        help="Start no more runs after N failed ones in a row; below 1, after more than that share of all."
        " Default 5.",
    )  # fmt: skip
    sub.add_argument(
        "--max_parallel", type=positive, metavar="N",
        help="With --slurm: jobs that run at a time, in all arrays. [as many as SLURM starts]",
    )  # fmt: skip
    sub.add_argument(
        "--slurm", metavar="KEY=VALUE,...",
        help="Submit the runs as a SLURM job array: partition, time, gpus (per run), cpus, mem, account, qos,"
        " constraint, parallel.",
    )  # fmt: skip


def _add_looks(sub: Any, flag: str) -> None:
    sub.add_argument(
        "--looks", type=numbers, metavar="N,N,...", help=f"With {flag}: seeds at which verdicts may be read."
    )
    sub.add_argument(
        "--max_seeds", type=positive, help=f"With {flag}: the most seeds of an arm. [the last look]"
    )


def _add_design(verbs: Any) -> None:
    text = "Write a sweep file that runs a part of another one's combinations."
    sub = verbs.add_parser("design", help=text, description=text)
    sub.add_argument(
        "kind", choices=("one_at_a_time", "leave_one_out", "fraction"),
        help="Each other value alone; each field of the last values reset to its first; or a regular"
        " fraction of all, which separates main effects.",
    )  # fmt: skip
    sub.add_argument("base", help="The sweep file that varies the fields, such as sweeps/factorial.yaml.")
    sub.add_argument("--to", metavar="FILE", help="File to write. [BASE_KIND.yaml beside BASE]")
    sub.add_argument(
        "--from", dest="start", metavar="'FIELD=VALUE ...'",
        help="Where one_at_a_time and leave_one_out start. [the first values; the last values]",
    )  # fmt: skip


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if (found := whole(text)) is None or found < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number of at least 1")
    return found


def failures(text: str) -> float:
    """A whole number of at least 1, or a share between 0 and 1."""
    found = number(text)
    if found is None or not (0 < found < 1 or (found >= 1 and found.is_integer())):
        raise argparse.ArgumentTypeError(
            f"{text}: must be a number of runs in a row, such as 5, or a share of all, such as 0.1"
        )
    return found


def points(text: str) -> float:
    """Percentage points, above 0 and below 100."""
    found = number(text)
    if found is None or not 0 < found < 100:
        raise argparse.ArgumentTypeError(f"{text}: must be percentage points, above 0 and below 100")
    return found


def numbers(text: str) -> list[int]:
    """`6,10,16,24`."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text}: must be whole numbers separated by commas, such as 6,10,16,24"
        ) from None


def natural(text: str) -> int:
    """A whole number of at least 0."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text}: must not be negative")
    return number


def opened(args: Any):
    """The study with what the command line replaces, and its runs with their states.

    Raises:
        UserError: in the file or in a `--set`.
    """
    from hbo.sweep.asked import check
    from hbo.sweep.plan import entries, repeats

    sets: dict[str, Any] = {}
    for text in args.sets:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: must be FIELD=VALUE")
        if name in sets:
            raise UserError(f"--set {text}: {name} is set twice; give one of them")
        try:
            read_as = load(value)
        except UserError as error:
            raise UserError(f"--set {text}: {value!r} is not a YAML value ({error})") from None
        # A list is swept over; a plain word is read by the type of its field, as a flag is.
        sets[name] = read_as if isinstance(read_as, (list, dict, str, NoneType)) else value.strip()
    for flag, name in (("devices_per_run", "devices"), ("threads", "threads")):
        value = getattr(args, flag)
        if value is not None and sets.setdefault(name, value) != value:
            raise UserError(f"--{flag} {value}: --set {name}={sets[name]} says otherwise; give one of them")
    study = read(args.file, sets, args.count, args.random_seed or 0)
    if args.random_seed is not None and study.method == "grid":
        raise UserError(f"--random_seed {args.random_seed}: needs method: random; {study.path} is a grid")
    runs = entries(study)
    check(study, runs, sets)
    if args.verb != "status" and (said := repeats(study, runs)):
        print(said, file=sys.stderr)
    return study, runs


def plan(args: Any) -> int:
    """`plan FILE`."""
    from hbo.runs import cluster
    from hbo.sweep import detect, freezing, timing
    from hbo.sweep import plan as p
    from hbo.sweep.loading import bottleneck
    from hbo.sweep.pool import places

    if args.sd and not (args.detect or args.freeze):
        raise UserError(f"--sd {args.sd:g}: needs --detect; add it, such as --detect 1.0")
    if (args.looks or args.max_seeds) and not args.freeze:
        raise UserError("--looks, --max_seeds: need --freeze; add it, or leave them out")
    study, runs = opened(args)
    p.price(runs)
    source = timing.estimate(runs, args.runs_per_device)
    found = detect.detect(study, runs, args.detect, args.sd) if args.detect else None
    beside, said = {}, []
    if found:
        beside["detect"], said = detect.as_dict(found, study), [detect.text(found)]
    if args.freeze:
        hoped = detect.expected(found) if found else {"sd": args.sd / 100, "from": "--sd"} if args.sd else {}
        frozen = freezing.freeze(study, runs, args.looks, args.max_seeds, hoped)
        beside["frozen"] = frozen.content() | {"hash": frozen.hash}
        said = [*said, freezing.said(frozen, freezing.path_of(runs))]
    if args.json:
        print(p.as_json(runs, beside))
    else:
        slow = bottleneck(runs)
        each, at_once = args.runs_per_device, args.workers
        if each > 1 and not cluster.visible_gpus():  # a plan for GPUs of another machine
            at_once = at_once or each
        devices = (at_once or len(places(runs, None, each))) // each
        totals = p.totals(runs, max(1, devices), source) + f"\n{slow}" * bool(slow)
        if study.texts:
            said.append(
                f"for `wandb sweep`: W&B reads {', '.join(study.texts)} as text; write 0.01 or 1.0e-2,"
                " and true or false without quotes"
            )
        print("\n\n".join([p.table(runs), totals, *said]))
    return 0


def design(args: Any) -> int:
    """`design KIND BASE`."""
    from hbo.sweep import drafting

    print(drafting.write(args.kind, args.base, args.to, args.start)[1])
    return 0


def show(args: Any) -> int:
    """`status FILE`."""
    from hbo.sweep import plan as p
    from hbo.sweep import queued

    _, runs = opened(args)
    queued.mark(runs)
    names = p.varying(runs)
    for entry in runs:
        fields = " ".join(f"{name}={entry.fields.get(name)}" for name in names)
        result = f"{summary.headline(entry.row)}, {p.clock(entry.seconds)}" if entry.state == "done" else ""
        print(f"{entry.key or '-':<10}  {fields}  {p.describe(entry)}  {result}".rstrip())
    counts = {
        state: sum(entry.state == state for entry in runs)
        for state in dict.fromkeys(entry.state for entry in runs)
    }
    print(f"\n{len(runs)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items()))
    for folder, n in queued.others(runs).items():
        print(
            f"{folder} has {n} runs that are not in this list; repeat the --set that they were started with"
        )
    return 0


def run(args: Any) -> int:
    """`run FILE`, here or on SLURM."""
    from hbo.sweep import asked, freezing, pool, slurm

    if (args.looks or args.max_seeds) and not args.until:
        raise UserError("--looks, --max_seeds: need --until decided; add it, or leave them out")
    by_slurm = args.slurm is not None  # an empty text too: a shell variable that is not set
    if args.max_parallel and not by_slurm:
        raise UserError(f"--max_parallel {args.max_parallel}: needs --slurm; on this machine use --workers")
    for flag in ("retries", "max_failures", "workers"):
        if by_slurm and getattr(args, flag) is not None:
            raise UserError(
                f"--{flag} {getattr(args, flag):g}: is for runs on this machine; SLURM starts its jobs by"
                " itself: leave it out"
            )
    study, runs = opened(args)
    if args.until and any(entry.run and entry.run.force for entry in runs):
        raise UserError(
            "--until decided: counts the finished rows, and force trains them again; leave one out"
        )
    freezing.leave_question(study, runs)

    def train(runs: list[Any]) -> int:
        if by_slurm:
            return slurm.submit(study, runs, args.slurm, args.max_parallel, args.runs_per_device)
        retries = 1 if args.retries is None else args.retries
        return pool.run(study, runs, args.workers, retries, args.max_failures or 5, args.runs_per_device)

    if args.until is None:
        status = train(runs)
        print(asked.where_to_read(runs), end="", file=sys.stderr)
        return status
    from hbo.sweep import until

    return until.run(until.opened(study, runs, args.looks, args.max_seeds), train, submitted=by_slurm)


if __name__ == "__main__":
    sys.exit(main())
