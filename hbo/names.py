"""Class names: normalised Unicode, and a check of a data set's names against a checkpoint's."""

import unicodedata

from hbo.errors import UserError


def same_name(name: str) -> str:
    """A class name in one form of Unicode: some systems store an accent as a separate character."""
    return unicodedata.normalize("NFC", name)


def check_names(found: list[str], known: list[str], where: str, whole: bool) -> None:
    """Check that a data set has the classes that the checkpoint was trained on.

    Args:
        found: names of the set's classes, in any order.
        known: names of the checkpoint's classes.
        where: the set, for messages.
        whole: whether `found` comes from the whole set, which must have all of them; a part may lack some.

    Raises:
        UserError: the names differ; the message lists them.
    """
    unknown, missing = sorted(set(found) - set(known)), [name for name in known if name not in set(found)]
    if unknown or (whole and missing):
        said = [
            f"{what} {few_names(names)}"
            for what, names in (("unknown", unknown), ("missing", missing))
            if names
        ]
        raise UserError(
            f"{where}: not the classes that the checkpoint was trained on: {'; '.join(said)}; name the"
            f" folders {few_names(known)}, or use another checkpoint"
        )


def few_names(names: list[str]) -> str:
    """At most ten names, and how many there are."""
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
