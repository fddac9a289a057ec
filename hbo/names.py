"""Names of classes: in one form of Unicode, and those of a set against those of a checkpoint."""

import unicodedata

from hbo.errors import UserError


def same_name(name: str) -> str:
    """A class's name in one of Unicode's forms: one system writes an accent as a letter of its own, another does not."""
    return unicodedata.normalize("NFC", name)


def check_names(found: list[str], known: list[str], where: str, whole: bool) -> None:
    """Refuse a set of other classes than the trained ones.

    Args:
        found: names of the set's classes, in any order.
        known: those of the checkpoint.
        where: the set, for people.
        whole: whether `found` is of the whole set, which then must have all of them; a part may lack some.

    Raises:
        UserError: the names are others; says which.
    """
    unknown, missing = sorted(set(found) - set(known)), [name for name in known if name not in set(found)]
    if unknown or (whole and missing):
        said = [f"{what} {few_names(names)}" for what, names in (("unknown", unknown), ("missing", missing)) if names]
        raise UserError(
            f"{where}: not the classes that the checkpoint was trained on: {'; '.join(said)}; name the folders of"
            f" {few_names(known)} so, or take another checkpoint"
        )


def few_names(names: list[str]) -> str:
    """At most ten names, and how many there are."""
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
