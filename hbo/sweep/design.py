"""Fewer runs than every combination: `python -m hbo.sweep design
one_at_a_time|leave_one_out|fraction BASE.yaml`.

A design is a list of combinations of the fields that a sweep file varies, each a `variant` of the file that
is written. In a fraction the last of several factors with the same prime number of levels is the sum of the
others, modulo that number, levels counted from 0 (Box, Hunter and Hunter, Statistics for Experimenters,
chapter 6): every level meets every other as often.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np

from hbo.errors import UserError
from hbo.runs import identity

Combination = dict[str, Any]  # factor -> its value
Factors = Mapping[str, Sequence[Any]]  # factor -> its values, in the file's order
PRIMES = (2, 3, 5, 7)
EXACT = 1e-9  # below which a product of two columns is zero


@dataclass(frozen=True)
class Design:
    """Combinations that are run, and what is to be known of them."""

    combinations: list[Combination]
    says: list[str]
    """Sentences for the file's comment."""


def one_at_a_time(factors: Factors, base: Combination) -> Design:
    """The base, and each other value of each factor alone."""
    others = [
        base | {name: value} for name, values in factors.items() for value in values if value != base[name]
    ]
    return Design(
        [base, *others],
        [f"one value at a time is changed from {shown(base)}: interactions cannot be estimated."],
    )


def leave_one_out(factors: Factors, full: Combination) -> Design:
    """The full combination, and it with each factor back at its baseline, the file's first value.

    Raises:
        UserError: the full combination is the baseline.
    """
    baseline = {name: values[0] for name, values in factors.items()}
    without = [full | {name: baseline[name]} for name in factors if full[name] != baseline[name]]
    if not without:
        raise UserError(f"--from {shown(full)!r}: is the baseline itself, so no field can be reset")
    says = [
        f"from {shown(full)} each field in turn is reset to {shown(baseline)}: interactions cannot be"
        " estimated."
    ]
    return Design([full, *without], says)


def fraction(factors: Factors) -> Design:
    """A regular fraction of all combinations, with main effects not confounded with each other.

    Raises:
        UserError: no three factors have the same prime number of levels.
    """
    levels = {name: len(values) for name, values in factors.items()}
    groups = {p: [name for name in factors if levels[name] == p] for p in PRIMES}
    made = {group[-1]: (p, group[:-1]) for p, group in groups.items() if len(group) > 2}
    if not made:
        each = ", ".join(f"{name} has {n}" for name, n in levels.items())
        instead = "give them equally many values" if len(levels) > 2 else "take the whole grid"
        raise UserError(
            "no regular fraction keeps main effects unconfounded: that needs three factors with the same"
            f" prime number of values; {each}; use one_at_a_time, or {instead}"
        )
    places = []
    for combination in product(*(range(n) for n in levels.values())):
        at = dict(zip(levels, combination, strict=True))
        if all(at[last] == sum(at[name] for name in others) % p for last, (p, others) in made.items()):
            places.append(at)
    found = [{name: factors[name][i] for name, i in at.items()} for at in places]
    rules = "; ".join(
        f"{last} = {' + '.join(others)} (mod {p}, values counted from 0)"
        for last, (p, others) in made.items()
    )
    whole = int(np.prod(list(levels.values())))
    says = [
        f"{len(found)} of the {whole} combinations, a regular fraction: {rules}.",
        *aliases(found, factors),
    ]
    return Design(found, says)


# ------------------------------------------------------------ what is aliased


def aliases(found: Sequence[Combination], factors: Factors) -> list[str]:
    """Which effects are confounded, up to interactions of two factors, as sentences.

    Raises:
        UserError: two main effects are confounded.
    """
    main = {name: _columns(found, {name: factors[name]}) for name in factors}
    both = {
        pair: _columns(found, {name: factors[name] for name in pair}) for pair in combinations(factors, 2)
    }
    for a, b in combinations(factors, 2):
        if _overlap(main[a], main[b]):
            raise UserError(f"{a} and {b} are confounded in these {len(found)} combinations")
    model = np.hstack([np.ones((len(found), 1)), *main.values()])
    if np.linalg.matrix_rank(model) < model.shape[1]:
        raise UserError(f"{len(found)} combinations are too few for the main effects of {', '.join(factors)}")
    said, clear = [], []
    for name, columns in main.items():
        mixed = [pair for pair, theirs in both.items() if name not in pair and _overlap(columns, theirs)]
        if mixed:  # of two values the whole interaction, of more a part of it
            said.append(
                f"{name} with"
                f" {' and '.join('part of ' * (len(factors[a]) > 2) + f'{a} x {b}' for a, b in mixed)}"
            )
        else:
            clear.append(name)
    pairs = [
        f"{' x '.join(a)} with {' x '.join(b)}"
        for a, b in combinations(both, 2)
        if _overlap(both[a], both[b])
    ]
    lines = [f"Aliased, and therefore indistinguishable: {'; '.join(said)}."] if said else []
    lines += [f"Not confounded with any interaction of two: {', '.join(clear)}."] if clear else []
    return lines + (
        [f"Interactions of two that are aliased with each other: {'; '.join(pairs)}."] if pairs else []
    )


def _columns(found: Sequence[Combination], factors: Factors) -> np.ndarray:
    """A main effect's columns (runs, levels - 1), each of mean zero over the levels; of an interaction, the
    products of theirs.
    """
    whole = np.ones((len(found), 1))
    for name, values in factors.items():
        levels = len(values)
        contrasts = np.linalg.qr(np.hstack([np.ones((levels, 1)), np.eye(levels)[:, 1:]]))[0][:, 1:]
        own = contrasts[[list(values).index(one[name]) for one in found]]
        whole = (whole[:, :, None] * own[:, None, :]).reshape(len(found), -1)
    return whole


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether an effect of `b` would show as one of `a`: the alias matrix (A'A)^-1 A'B is not zero."""
    return bool(np.abs(np.linalg.lstsq(a, b, rcond=None)[0]).max(initial=0) > EXACT)


def shown(combination: Combination) -> str:
    """`k=1 upsample=nearest`, as a variant names it."""
    yaml = {None: "null", True: "true", False: "false"}
    plain = lambda value: yaml[value] if value is None or isinstance(value, bool) else value
    return " ".join(identity.say(name, plain(value)) for name, value in combination.items())
