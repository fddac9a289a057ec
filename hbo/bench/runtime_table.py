"""What `hbo.bench infer` measured, a line for each runtime, network, precision and number of threads."""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from hbo.text import aligned

ONNX = ("plain", "deployed", "mobilenetv2_plain", "mobilenetv2_deployed")


def lines(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Flat lines for a CSV, the turns as text in each.

    Args:
        found: of `hbo.bench.infer.infer`.
    """
    made, out = found["runtimes"], []
    for threads, part in found["threads"].items():
        failed = {name: None for name, facts in made.items() if "failed" in facts}
        for name, ms in (part["ms"] | failed).items():
            runtime, _, rest = name.rpartition(":") if ":" in name else ("onnx", "", name)
            if runtime == "onnx" and name not in ONNX:
                continue
            network = "mobilenetv2" if rest.startswith("mobilenetv2") else "own"
            facts = made.get(name, {"bytes": found["bytes"].get(name)})
            versions = made.get(runtime, {"onnxruntime": found["onnxruntime"]})
            out.append(
                {
                    "runtime": runtime,
                    "network": found["nets"].get(network, found["net"]),
                    "form": rest.removeprefix("mobilenetv2_"),
                    "threads": int(threads),
                    **times(ms, part["ms"]["plain"]),
                    "times_limit": ms and statistics.median(ms) / part["limit_ms"],
                    **of_file(facts, versions),
                    "resolution": found["resolution"],
                    "macs": found["macs"],
                    "machine": found["machine"],
                    "instructions": found["instructions"],
                    "git": found["git"],
                }
            )
    return out


def times(ms: list[float] | None, base: list[float] | None) -> dict[str, Any]:
    """Milliseconds per image over the turns, and how many times as fast as the baseline, turn by turn; None
    for a file that failed.
    """
    if ms is None:
        return dict.fromkeys(("latency_ms", "least_ms", "greatest_ms", "speedup", "turns"))
    return {
        "latency_ms": statistics.median(ms),
        "least_ms": min(ms),
        "greatest_ms": max(ms),
        "speedup": base and statistics.median(b / a for a, b in zip(ms, base, strict=True)),
        "turns": " ".join(f"{value:.4g}" for value in ms),
    }


def of_file(facts: dict[str, Any], versions: dict[str, str]) -> dict[str, Any]:
    """Facts about a converted file: pieces in the delegate, worst difference, top-1, size, versions; or
    why it was not timed.
    """
    pieces = facts.get("pieces") or {}
    return {
        "pieces": pieces.get("pieces"),
        "left_out": " ".join(f"{op}x{n}" for op, n in pieces.get("left", {}).items()),
        "difference": facts.get("difference"),
        "top1": facts.get("top1"),
        "bytes": facts.get("bytes"),
        "versions": " ".join(f"{package}={number}" for package, number in versions.items()),
        "failed": facts.get("failed"),
    }


def text(found: list[dict[str, Any]]) -> str:
    """Lines as a table in text."""
    head = ("runtime", "network", "form", "threads", "ms", "speedup", "pieces", "difference", "top-1", "MB")
    shown: list[tuple[str, ...]] = [head]
    for line in found:
        shown.append(
            (
                line["runtime"], line["network"], line["form"], str(line["threads"]),
                _said(line["latency_ms"], "{:.2f}") or "failed", _said(line["speedup"], "{:.2f}"),
                str(line["pieces"] or ""), _said(line["difference"], "{:.0e}"),
                _said(line["top1"] and 100 * line["top1"], "{:.2f} %"),
                _said(line["bytes"] and line["bytes"] / 1e6, "{:.2f}"),
            )
        )  # fmt: skip
    return "\n".join(aligned(shown, right=range(3, 10)))


def markdown(found: list[dict[str, Any]]) -> str:
    """Lines of a CSV as a Markdown table, a line for each runtime, network and precision.

    Milliseconds and speedups (over the same network's plain export in ONNX Runtime) are medians of the turns,
    on one and on two threads. Each network of the call has its own lines, even if descriptions are equal.
    """
    names = short([line["network"] for line in found])
    threads = sorted({line["threads"] for line in found})
    each: dict[tuple[str, str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in found:
        # Seeds of a network share its description; their keys differ. Files of others have no key.
        own = name = " ".join(filter(None, (names[line["network"]], line.get("key"))))
        n = 1
        while line["threads"] in each[line["runtime"], name, line["form"]]:
            name = f"{own} ({(n := n + 1)})"
        each[line["runtime"], name, line["form"]][line["threads"]] = line
    on = " / ".join(map(str, threads))
    head = ("runtime", "network", "form", f"ms on {on} threads", "speedup", "pieces", "left outside",
            "difference", "top-1", "MB")  # fmt: skip
    table = [head, ("---",) * len(head)]
    for key, by_threads in each.items():
        some = by_threads[threads[0]]
        table.append(
            (
                *key,
                " / ".join(_said(by_threads[n]["latency_ms"], "{:.2f}") or "failed" for n in threads),
                " / ".join(_said(by_threads[n]["speedup"], "{:.2f}") for n in threads),
                _said(some["pieces"], "{:.0f}"),
                some["left_out"],
                _said(some["difference"], "{:.0e}"),
                _said(some["top1"] and 100 * some["top1"], "{:.2f} %"),
                _said(some["bytes"] and some["bytes"] / 1e6, "{:.2f}"),
            )
        )
    text = "\n".join(f"| {' | '.join(line)} |" for line in table)
    whole = "; ".join(f"{name}: {full}" for full, name in names.items())
    where = ", ".join(sorted({f"{line['machine']}, {line['instructions']}" for line in found}))
    turns = next(len(line["turns"].split()) for line in found if line["turns"])
    failed = {
        f"\n{line['runtime']} {names[line['network']]} {line['form']}: {line['failed']}; not timed."
        for line in found
        if line.get("failed")
    }
    return f"{text}\n\n{whole}.\nMedians of {turns} turns; {where}.{''.join(sorted(failed))}\n"


def short(networks: Iterable[str]) -> dict[str, str]:
    """Each description -> its name and what distinguishes it from the other networks of that name."""
    parts = {network: network.split(", ") for network in networks}
    alike: dict[str, list[set[str]]] = defaultdict(list)
    for name, *rest in parts.values():
        alike[name].append(set(rest))
    return {
        network: " ".join([name, *(p for p in rest if p not in set.intersection(*alike[name]))])
        for network, (name, *rest) in parts.items()
    }


def _said(value: Any, how: str) -> str:
    return "" if value is None else how.format(value)
