"""Figures from rows: accuracy against cost, budget and each switch, judged differences, learning curves.

Each function returns a matplotlib `Figure`; `save` writes it as PDF, SVG and PNG;
`page` sets its width and font.

    python -m hbo.analysis.figures contraction mobilenetv2 --of k --to fig      # fig.pdf, .svg, .png
"""

from hbo.analysis.figures.budgets import by_budget, figure1
from hbo.analysis.figures.by_runtime import runtimes
from hbo.analysis.figures.command import main
from hbo.analysis.figures.costs import by_height, resolution_costs, stage_costs
from hbo.analysis.figures.differences import forest
from hbo.analysis.figures.studies import accuracy, accuracy_cost, learning_curves, of
from hbo.analysis.figures.style import Look, as_bytes, looks, page, save

__all__ = [
    "Look", "accuracy", "accuracy_cost", "as_bytes", "by_budget", "by_height", "figure1", "forest",
    "learning_curves", "looks", "main", "of", "page", "resolution_costs", "runtimes", "save", "stage_costs",
]  # fmt: skip
