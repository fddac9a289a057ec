"""Assign rows to the lines of a table by their network, with one column per protocol.

A protocol is a run's identity without network and seed. The paper's protocol has the column "".
"""

import json
from collections.abc import Sequence
from typing import Any

from hbo.analysis import results
from hbo.config import Run, content
from hbo.runs import identity, naming
from hbo.runs.identity import Identity
from hbo.text import counted


def measured(rows: Any, runs: Sequence[Run], metric: str) -> dict[str, dict[int, Any]]:
    """Finished rows of the lines' networks: a column's title -> the line's index -> its rows, one per seed.

    A row belongs to a line with the same network and switches, and with the same resolution if the network
    has lines at several. A column is a protocol: its rows' identities differ from their lines' in the same
    way. The column "" has the paper's protocol; other titles name the data set and what distinguishes it from
    the other columns. Rows with --holdout, which tuned a recipe, are excluded; so are data sets whose columns
    all have one line, if another data set compares lines.

    Args:
        rows: from `results.load`.
        runs: the published runs of a table's lines.
        metric: the required column.

    Raises:
        UserError: two rows are the same run with the same seed.
    """
    if metric not in rows:
        return {}
    done = rows[(rows["state"] == "done") & rows[metric].notna() & (rows["holdout"] == 0)].drop_duplicates(
        "key"
    )
    every = results.identities(done)
    said_by_line = [*Run.BACKBONE, "task"]
    of_each: dict[str, set[int]] = {}
    for run in runs:
        of_each.setdefault(run.net, set()).add(run.resolution)
    if max(map(len, of_each.values())) > 1:
        said_by_line.append("resolution")
    columns: dict[str, dict[int, list[int]]] = {}
    for i, run in enumerate(runs):
        line = content(vars(run))
        for j, one in enumerate(every):
            if any(identity.value(one, n) != identity.value(line, n) for n in said_by_line):
                continue
            apart = _apart(one, line, said_by_line)
            if apart.keys() <= {"resolution", "eval_resize", "cached_side"} and "resolution" in apart:
                continue  # the paper's protocol at the resolution of another table
            columns.setdefault(json.dumps(apart, sort_keys=True, default=str), {}).setdefault(i, []).append(j)
    found = {}
    names = naming.data_names(done.to_dict("records"))
    titles = _titles([json.loads(c) for c in columns], list(columns.values()), every, names)
    for title, lines in zip(titles, columns.values(), strict=True):
        for i, places in lines.items():
            for more, group in _by_backbone([every[j] for j in places], done.iloc[places]):
                cell = found.setdefault(
                    f"{title[:-1] or 'by the paper (its protocol'}{more})" if more else title, {}
                )
                assert i not in cell, f"{title}: two protocols under one title"
                cell[i] = results.check_seeds(group)
    data_of = lambda title: title.partition(" (")[0]
    compare = {data_of(title) for title, lines in found.items() if title and len(lines) > 1}
    return {
        title: lines
        for title, lines in found.items()
        if not title or not compare or data_of(title) in compare
    }


def _apart(one: Identity, line: Identity, said_by_line: Sequence[str]) -> dict[str, Any]:
    """How a row's protocol differs from its line's; values that depend on the resolution are compared
    relative to it.
    """
    one, line = _relative(one, said_by_line), _relative(line, said_by_line)
    if line.get("task", "classify") != "classify":  # the paper's runs start from ImageNet's weights
        line["backbone"] = one.get("backbone", "a checkpoint")
    return {
        n: identity.value(one, n)
        for n in one.keys() | line.keys()
        if identity.value(one, n) != identity.value(line, n)
    }


def _relative(one: Identity, said_by_line: Sequence[str]) -> Identity:
    size, resize = identity.value(one, "resolution"), identity.value(one, "eval_resize")
    share = {size: "the whole image", round(size / 0.875): "the middle 0.875"}.get(resize, resize)
    one = {
        name: what
        for name, what in one.items()
        if name not in {*said_by_line, "seed"} or name in ("task", "resolution")
    }
    if "resolution" in said_by_line:
        one.pop("resolution", None)
    side = (
        {"cached_side": "eval_resize" if one["cached_side"] == resize else one["cached_side"]}
        if "cached_side" in one
        else {}
    )
    return one | {"eval_resize": share} | side


def _titles(
    aparts: list[dict[str, Any]], lines: list[dict[int, list[int]]], every: list[Identity], names: list[str]
) -> list[str]:
    """A title for each column: data set, image size, epochs; and for columns that share
    these, the other differences.
    """
    rows = [[every[j] for places in found.values() for j in places] for found in lines]
    data = [next(names[j] for places in found.values() for j in places) for found in lines]
    sets, heads = [], []
    for apart, ones, name in zip(aparts, rows, data, strict=True):
        shared = {
            n: identity.value(ones[0], n) for n in ("resolution", "epochs") if n not in identity.varying(ones)
        }
        size = [
            said(shared[n])
            for n, said in (("resolution", "{} px".format), ("epochs", lambda n: counted(n, "epoch")))
            if n in shared
        ]
        weights = ["random weights"] * ("backbone" in apart and "backbone" not in ones[0])
        sets.append((name, shared.get("epochs"), *weights))
        heads.append([*size, *weights])
    titles = []
    for apart, one_set, head, ones in zip(aparts, sets, heads, rows, strict=True):
        same = [other for other, its in zip(aparts, sets, strict=True) if its == one_set]
        differ = [
            n
            for n in [*identity.FIELDS, *identity.EXTRAS]
            if n not in ("data", "images")  # the name says these
            and len({str(other.get(n)) for other in same}) > 1
            and not (n == "resolution" and f"{identity.value(ones[0], n)} px" in head)
        ]
        # Values that depend on the resolution are shown relative to it if a column has several.
        more = [
            identity.say(n, apart.get(n) if n in identity.varying(ones) else identity.value(ones[0], n))
            for n in differ
        ]
        titles.append(f"on {one_set[0]} ({', '.join([*head, *more])})" if apart else "")
    return titles


def _by_backbone(ones: list[Identity], group: Any) -> list[tuple[str, Any]]:
    """The rows of a cell, split by their initial checkpoint."""
    digests = [one.get("backbone") for one in ones]
    if len(set(digests)) < 2:
        return [("", group)]
    return [(f", backbone {d}", group[[other == d for other in digests]]) for d in dict.fromkeys(digests)]
