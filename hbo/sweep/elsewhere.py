"""Where the keys of a plan are in all studies of a folder."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbo import files
from hbo.runs import rows

if TYPE_CHECKING:
    from hbo.sweep.plan import Entry


class Elsewhere:
    """Where any study has the keys of a plan that are not done, as of the last `look`.

    A look lists each study's folder once, and reads a row of another study only where it has changed: the
    folders may lie on another machine's disk, and hold tens of thousands of rows.
    """

    def __init__(self) -> None:
        self.folders: dict[str, list[Path]] = {}
        self._done: dict[Path, tuple[Any, bool]] = {}  # a folder -> its row's stamp, and whether it is done

    def look(self, plan: "list[Entry]") -> None:
        """List the folders again."""
        wanted = {entry.key for entry in plan if entry.run and entry.state != "done"}
        roots = {files.expanded(entry.run.out) for entry in plan if entry.run}
        self.folders = {}
        for root in sorted(roots) if wanted else ():
            for study in _names(root):
                for key in wanted.intersection(_names(root / study)):
                    self.folders.setdefault(str(key), []).append(root / study / str(key))

    def others(self, entry: "Entry") -> list[Path]:
        """The folders of an entry's key in other studies."""
        return [path for path in self.folders.get(str(entry.key), ()) if path != entry.home]

    def done(self, entry: "Entry") -> Path | None:
        """Where another study has it finished."""
        for path in self.others(entry):
            stamp = files.stamp(path / "row.json")
            if self._done.get(path, (None, False))[0] != stamp:
                self._done[path] = stamp, (rows.sound(path) or {}).get("state") == "done"
            if stamp and self._done[path][1]:
                return path
        return None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # not there, or a file
        return []
