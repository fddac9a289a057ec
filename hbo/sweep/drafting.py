"""Write a sweep file from another one: a design's combinations as variants, with the
base's other fields and seeds.
"""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbo import files
from hbo.config import checked, resolve
from hbo.errors import UserError
from hbo.sweep import design
from hbo.sweep.design import Combination, Design, shown
from hbo.sweep.study import Sweep, read, read_content
from hbo.words import did_you_mean

WIDTH = 124  # of a comment's lines, without its mark
MARGIN = 1.0  # points, if the base names none
KINDS = ("one_at_a_time", "leave_one_out", "fraction")


@dataclass(frozen=True)
class Base:
    """A sweep file as a design takes it."""

    study: Sweep
    content: dict[str, Any]
    factors: dict[str, list[Any]]
    """What it varies besides the seed, in the file's order."""
    seeds: list[int]


def write(kind: str, path: str, to: str | None = None, start: str | None = None) -> tuple[Path, str]:
    """Write a design of a sweep file: where, and what to say of it.

    Args:
        kind: one of `KINDS`.
        path: of the base.
        to: the new file. [BASE_KIND.yaml in the base's folder]
        start: values of factors, `k=2 upsample=nearest`, in place of the base's first (one_at_a_time) or last
            (leave_one_out).

    Raises:
        UserError: the base has nothing to design, a combination is not a run, the new file already exists.
    """
    base = _base(path)
    target = Path(to) if to else base.study.path.with_name(f"{base.study.name}_{kind}.yaml")
    if target.suffix not in (".yaml", ".yml") or not target.parent.is_dir():
        raise UserError(f"--to {target}: must name a .yaml file in an existing folder")
    if target.exists():
        raise UserError(f"{target}: already exists; remove it, or name another with --to")
    made = _design(kind, base, start)
    for combination in made.combinations:
        _check(base, combination)
    files.write_atomically(target, _text(kind, base, made, target))
    runs = len(made.combinations) * len(base.seeds)
    said = f"{target}: {runs} runs, {len(made.combinations)} combinations x {len(base.seeds)} seeds,"
    said += f" of {len(base.study.rows)}"
    return target, "\n".join([said, *made.says])


def _base(path: str) -> Base:
    """The base, read.

    Raises:
        UserError: it is not a grid of several fields.
    """
    study = read(path)
    content = read_content(study.path)
    why = None
    if study.method != "grid" or "run_cap" in content:
        why = "a design needs a whole grid: method: grid, without run_cap"
    values = {
        name: list({repr(row[name]): row[name] for row in study.rows}.values())
        for name in content["parameters"]
    }
    factors = {name: found for name, found in values.items() if len(found) > 1 and name != "seed"}
    if "variant" in factors or "study" in factors:
        why = "variant and study are not single fields: write the varied fields as separate parameters"
    elif len(factors) < 2:
        why = f"a design needs several fields; the file varies {', '.join(factors) or 'none'}"
    if why:
        raise UserError(f"{path}: {why}")
    return Base(study, content, factors, values.get("seed", [0]))


def _design(kind: str, base: Base, start: str | None) -> Design:
    if kind == "fraction":
        if start:
            raise UserError("--from: not used by fraction; remove it")
        return design.fraction(base.factors)
    place = 0 if kind == "one_at_a_time" else -1
    first = {name: values[place] for name, values in base.factors.items()} | _started(base, start or "")
    return {"one_at_a_time": design.one_at_a_time, "leave_one_out": design.leave_one_out}[kind](
        base.factors, first
    )


def _started(base: Base, text: str) -> Combination:
    """`k=2 upsample=nearest` as values of the factors."""
    found = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals or name not in base.factors:
            raise UserError(
                f"--from {text!r}: {word!r} must be FIELD=VALUE of"
                f" {', '.join(base.factors)}{did_you_mean(name, list(base.factors))}"
            )
        found[name] = checked(name, value)
        if found[name] not in base.factors[name]:
            there = ", ".join(map(str, base.factors[name]))
            raise UserError(f"--from {text!r}: {base.study.path} has {name} = {there}")
    return found


def _check(base: Base, combination: Combination) -> None:
    """Check that a combination is a valid run, and that a variant can name it."""
    text = shown(combination)
    if any(len(str(value).split()) > 1 for value in combination.values()):
        raise UserError(f"{text}: a variant's values cannot contain spaces")
    fixed = {name: value for name, value in base.study.rows[0].items() if name not in base.factors}
    try:
        resolve(**fixed, variant=text)
    except UserError as error:
        raise UserError(
            f"{text}: not a valid run ({error}); remove the value from {base.study.path}"
        ) from None


def _text(kind: str, base: Base, made: Design, target: Path) -> str:
    """The file."""
    keys = [key for key in base.content if key not in ("primary", "parameters")]
    changed = {"name": target.stem, "primary": _primary(kind, base, made)}
    top = {key: base.content[key] for key in keys} | changed
    own = {"study": {"value": target.stem}}
    own |= {
        name: p
        for name, p in base.content["parameters"].items()
        if name not in {*base.factors, "study", "seed"}
    }
    return "".join(
        [
            *_comment(kind, base, made, target),
            *(f"{key}: {_flow(value)}\n" for key, value in top.items()),
            "parameters:\n",
            *(f"  {name}: {_flow(parameter)}\n" for name, parameter in own.items()),
            "  variant:\n    values:\n",
            *(f'      - "{shown(one)}"\n' for one in made.combinations),
            f"  seed: {_flow({'values': base.seeds})}\n",
        ]
    )


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    import yaml

    return (
        yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=10**6)
        .removesuffix("...\n")
        .strip()
    )


def _primary(kind: str, base: Base, made: Design) -> dict[str, Any]:
    asked = base.study.primary
    metric = {"metric": asked.metric} if asked.metric else {}
    versus: Any = list(base.factors) if kind == "fraction" else shown(made.combinations[0])
    judge = {"judge": "effects"} if kind == "fraction" else {}
    return metric | {"versus": versus, "margin": asked.margin or MARGIN} | judge


def _comment(kind: str, base: Base, made: Design, target: Path) -> list[str]:
    """The base's comment, its first lines about the design."""
    lines = base.study.path.read_text().splitlines()
    top = [
        line[1:].strip()
        for line in lines[: next(i for i, line in enumerate(lines) if line and line[0] != "#")]
    ]
    mark = lambda *words: [i for i, line in enumerate(top) if line.startswith(words)]
    asks = " ".join(top[: min(mark("Regenerates:", "Cost:"), default=len(top))])
    rest = top[mark("Cost:")[0] + 1 :] if mark("Cost:") else []
    runs = len(made.combinations) * len(base.seeds)
    paragraphs = [
        *[asks] * bool(asks),
        f"Here {made.says[0]}",
        *made.says[1:],
        f"Regenerates: nothing of the paper; made by `python -m hbo.sweep design {kind} {base.study.path}`.",
        f"Cost: {runs} runs. `python -m hbo.sweep plan {target}` says how long they take here.",
    ]
    wrapped = [
        line
        for text in paragraphs
        for line in textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
    return [f"# {line}\n" for line in [*wrapped, *rest]]
