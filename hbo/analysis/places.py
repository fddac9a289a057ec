"""What people type for a study: its name, or where its runs are."""

from collections.abc import Sequence
from pathlib import Path

from hbo.analysis import results
from hbo.errors import UserError


def studies(words: Sequence[str], source: str | Path) -> tuple[list[str], str | Path]:
    """Names of studies, and the source that has them: `contraction`, or `runs/contraction`, `runs`, `rows.csv`.

    A word is a place where there is one, as for `hbo.analysis.results`. Several places lie in one folder.

    Raises:
        UserError: places in several folders, places and names together, or a place without rows.
    """
    places = [Path(word) for word in words if "/" in word or Path(word).exists()]
    if not places:
        return list(words), source
    if len(places) < len(words) or len({place.resolve().parent for place in places}) > 1:
        raise UserError(f"{' '.join(words)}: give folders that lie beside each other, or names of studies and --source FOLDER")
    if len(places) == 1:
        rows = results.load(places[0])
        return [str(name) for name in dict.fromkeys(rows["study"])], places[0]
    return [place.resolve().stem for place in places], places[0].resolve().parent
