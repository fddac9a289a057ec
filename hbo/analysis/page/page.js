"use strict";

// Tables: a click on a header sorts by it, a second click reverses, a third restores. Numbers sort by their first
// number, so "71.2 ± 0.4" sorts by its mean; a dash is last.
const value = (cell) => {
  const text = cell.textContent.trim();
  const found = text.replace(/\u2212/g, "-").replace(/(\d),(?=\d{3})/g, "$1").match(/^([<>]?) ?([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)/i);
  const number = found ? Number(found[2]) - (found[1] === "<" ? 1e-9 : 0) : NaN;
  return { text, number, absent: text === "" || text === "\u2014" };
};

const compare = (numbers) => (a, b) =>
  numbers ? a.number - b.number : a.text.localeCompare(b.text, undefined, { numeric: true });

for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0];
  const before = [...body.rows];
  table.tHead.rows[0].querySelectorAll("th").forEach((head, i) => {
    head.querySelector("button").addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[head.ariaSort ?? "none"];
      for (const other of table.tHead.rows[0].cells) other.ariaSort = "none";
      head.ariaSort = next;
      const rows = before.map((row) => [row, value(row.cells[i])]);
      const there = rows.filter(([, v]) => !v.absent);
      const by = compare(there.every(([, v]) => !Number.isNaN(v.number)));
      const sign = next === "descending" ? -1 : 1;
      there.sort(([, a], [, b]) => sign * by(a, b));
      const order = next === "none" ? rows : [...there, ...rows.filter(([, v]) => v.absent)];
      body.append(...order.map(([row]) => row));
    });
  });
}

// Runs: pointing at a dot, or moving to it with Tab and the arrow keys, shows its key and command.
for (const plot of document.querySelectorAll(".runs")) {
  const runs = JSON.parse(plot.querySelector("script").textContent);
  const told = plot.querySelector(".told");
  const dots = [...plot.querySelectorAll(".dot")];
  const tell = (dot) => {
    const run = runs[Number(dot.dataset.run)];
    const code = document.createElement("code");
    code.textContent = run.command;
    told.replaceChildren(run.said, code);
    for (const other of dots) {
      other.classList.toggle("chosen", other === dot);
      other.tabIndex = other === dot ? 0 : -1;
    }
  };
  dots.forEach((dot, i) => {
    dot.tabIndex = i ? -1 : 0;
    dot.removeAttribute("title"); // the same text, for readers without scripts
    dot.addEventListener("mouseenter", () => tell(dot));
    dot.addEventListener("focus", () => tell(dot));
    dot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      dots[(i + step + dots.length) % dots.length].focus();
    });
  });
}
