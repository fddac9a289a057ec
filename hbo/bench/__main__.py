"""python -m hbo.bench train|infer|operators|data|gpu: a table with ratios to a named baseline,
measured in turns in one run.

python -m hbo.bench train --data imagenet --batch 32 --k 2     # images/s of training
python -m hbo.bench infer --k 2                                # milliseconds per image, deployed
python -m hbo.bench operators --to onnx --k 2                  # which operators an image's time goes to
python -m hbo.bench data --data imagefolder --data_dir DIR     # images/s of loading, on one core
python -m hbo.bench gpu --to gpu.json                          # training on a GPU

Each also takes --json, which includes every turn, and --help.
"""

import importlib
import sys

from hbo.errors import UserError, one_line
from hbo.words import did_you_mean

COMMANDS = ("train", "infer", "operators", "data", "gpu")


def main(argv: list[str] | None = None) -> None:
    """The command line: one of `COMMANDS`, then its own flags."""
    command, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help"):
        print(__doc__)
        return
    with one_line():
        if command not in COMMANDS:
            raise UserError(
                f"bench {command}: choose from {', '.join(COMMANDS)}{did_you_mean(command, list(COMMANDS))}"
            )
        importlib.import_module(f"hbo.bench.{command}").main(rest)


if __name__ == "__main__":
    main()
