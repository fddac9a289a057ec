"""Python runs this at the start of each process whose PYTHONPATH has this folder: see `short.py`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
import short

short.install()
