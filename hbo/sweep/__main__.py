"""python -m hbo.sweep plan|run|status FILE: a W&B sweep file without a server.

python -m hbo.sweep plan sweeps/contraction.yaml                    # keys, costs, states, hours
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
from hbo.runs import rows
from hbo.sweep.study import read
from hbo.values import load
from hbo.words import Parser


def main(argv: list[str] | None = None) -> None:
    """The command line. Exit status: 0, 1 where a run failed, 2 for a wrong file or flag, 128 + n at signal n."""
    args = parser().parse_args(argv)
    with one_line(), files.one_look() if args.verb == "plan" else nullcontext():
        status = {"plan": plan, "run": run, "status": show}[args.verb](args)
    raise SystemExit(status)


def parser() -> Parser:
    """The verbs and their flags."""
    whole = Parser(prog="python -m hbo.sweep", description="A W&B sweep file without a server.")
    verbs = whole.add_subparsers(dest="verb", required=True)
    about = {
        "plan": "Say every run before anything starts: key, costs, state, hours.",
        "run": "Start what is missing or unfinished, here or on SLURM; a second call goes on.",
        "status": "Say what is there.",
    }
    for verb, text in about.items():
        sub = verbs.add_parser(verb, help=text, description=text)
        sub.add_argument("file", help="A sweep file in W&B's format, such as sweeps/contraction.yaml.")
        sub.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE", dest="sets",
            help="Replace a parameter of the file, for all runs; FIELD=[A,B] sweeps over it. May be repeated.",
        )  # fmt: skip
        sub.add_argument("--count", type=positive, help="Runs of a random sweep; left out: the file's run_cap.")
        sub.add_argument("--random_seed", type=int, default=0, help="Seed of a random sweep.")
        sub.add_argument(
            "--workers", type=positive, help="Runs at once. Left out: a GPU group each, else the cores by the threads of a run."
        )
        sub.add_argument("--devices_per_run", type=positive, help="The same as --set devices=M.")
        sub.add_argument("--threads", type=positive, help="The same as --set threads=T: CPU threads of a run.")
        if verb == "plan":
            sub.add_argument("--json", action="store_true", help="Print JSON alone: an object a run.")
        if verb == "run":
            sub.add_argument(
                "--retries", type=natural, default=1, help="Times that a run that crashed is started again. Default 1."
            )
            sub.add_argument(
                "--max_failures", type=positive, default=5, help="Start no more after so many failed runs. Default 5."
            )
            sub.add_argument(
                "--slurm", metavar="KEY=VALUE,...",
                help="Submit the runs as a SLURM job array: partition, time, gpus (of a run), cpus, mem, account, qos, constraint, parallel.",
            )  # fmt: skip
    return whole


def positive(text: str) -> int:
    """A whole number from 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number


def natural(text: str) -> int:
    """A whole number from 0."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text}: must not be negative")
    return number


def opened(args: Any):
    """The study with what the command line replaces, and its runs with their states.

    Raises:
        UserError: in the file or in a `--set`.
    """
    from hbo.sweep.plan import entries

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
            raise UserError(f"--set {text}: {value!r} is no YAML value ({error})") from None
        # A list is swept over; a plain word is read by the type of its field, as a flag is.
        sets[name] = read_as if isinstance(read_as, (list, dict, str, NoneType)) else value.strip()
    for flag, name in (("devices_per_run", "devices"), ("threads", "threads")):
        value = getattr(args, flag)
        if value is not None and sets.setdefault(name, value) != value:
            raise UserError(f"--{flag} {value}: --set {name}={sets[name]} says otherwise; give one of them")
    study = read(args.file, sets, args.count, args.random_seed)
    return study, entries(study)


def plan(args: Any) -> int:
    """`plan FILE`."""
    from hbo.sweep import plan as p
    from hbo.sweep import timing
    from hbo.sweep.loading import bottleneck
    from hbo.sweep.pool import places

    _, runs = opened(args)
    p.price(runs)
    source = timing.estimate(runs)
    if args.json:
        print(p.as_json(runs))
    else:
        slow = bottleneck(runs)
        totals = p.totals(runs, args.workers or len(places(runs, None)), source)
        print("\n\n".join([p.table(runs), totals]) + f"\n{slow}" * bool(slow))
    return 0


def show(args: Any) -> int:
    """`status FILE`."""
    from hbo.sweep import plan as p
    from hbo.sweep import slurm

    _, runs = opened(args)
    slurm.mark_queued(runs)
    names = p.varying(runs)
    for entry in runs:
        fields = " ".join(f"{name}={entry.fields.get(name)}" for name in names)
        result = f"{rows.headline(entry.row)}, {p.clock(entry.seconds)}" if entry.state == "done" else ""
        print(f"{entry.key or '-':<10}  {fields}  {p.describe(entry)}  {result}".rstrip())
    counts = {state: sum(entry.state == state for entry in runs) for state in dict.fromkeys(entry.state for entry in runs)}
    print(f"\n{len(runs)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items()))
    return 0


def run(args: Any) -> int:
    """`run FILE`, here or on SLURM."""
    from hbo.sweep import pool, slurm

    study, runs = opened(args)
    if args.slurm:
        return slurm.submit(study, runs, args.slurm)
    return pool.run(study, runs, args.workers, args.retries, args.max_failures)


if __name__ == "__main__":
    sys.exit(main())
