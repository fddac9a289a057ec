"""The command line: figures of a study."""

from pathlib import Path

from hbo.analysis.figures import studies, style
from hbo.analysis.study import add_arguments, from_arguments
from hbo.errors import UserError, one_line
from hbo.words import Parser


def main(argv: list[str] | None = None) -> None:
    """Draw one figure of a study, or all that its rows allow."""
    parser = Parser(
        prog="python -m hbo.analysis.figures",
        description="Figures of a study, by its name or by the folder of its runs.",
    )
    add_arguments(parser)
    parser.add_argument(
        "--of",
        help="Which figure: a switch, macs, budgets, latency, runtimes or curves. [all, as TO_NAME]",
    )
    parser.add_argument(
        "--to", help="File without suffix; for an existing folder, or DIR/, DIR/STUDY. [STUDY]"
    )
    parser.add_argument("--format", choices=style.KINDS, help="File format. [all three]")
    parser.add_argument(
        "--width",
        choices=list(style.WIDTHS),
        default="text",
        help="Width of a paper's column or of its text. [text]",
    )
    parser.add_argument("--font", choices=style.FONTS, default="sans-serif", help="[sans-serif]")
    args = parser.parse_args(argv)
    with one_line(), style.page(args.width, args.font):
        kinds = [args.format] if args.format else style.KINDS
        for study in from_arguments(args):
            found, to = studies.of(study), _stem(args.to, study.names[0])
            to = to.with_name(to.name + study.stem)
            if args.of and args.of not in found:
                raise UserError(f"of={args.of!r}: the rows allow {', '.join(found)}")
            chosen = (
                {to: found[args.of]}
                if args.of
                else {to.with_name(f"{to.name}_{n}"): f for n, f in found.items()}
            )
            for stem, figure in chosen.items():
                print(*style.save(figure, stem, kinds))


def _stem(to: str | None, study: str) -> Path:
    """The figures' path, without the suffix that each adds to the name."""
    if to is None:
        return Path(study)
    return Path(to) / study if to.endswith("/") or Path(to).is_dir() else Path(to)
