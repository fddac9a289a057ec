"""A copy of the code with which a study was submitted, in OUT/STUDY/code/DIGITS. A job that SLURM starts days
later runs this copy, whatever has changed since.

The digits are a hash of the package's files; a row has its own under `code`.
"""

import json
import os
import shutil
from pathlib import Path

from hbo.runs import code

START = '''"""python start.py MODULE ARGS: run a module of the copy of hbo that lies beside this file."""
import os
import runpy
import sys

words = [word for place, word in enumerate(sys.argv[1:]) if place > 1 or word not in ("-u", "-m")]
# The first place that Python looks in, before the working directory.
here = os.path.dirname(os.path.abspath(__file__))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
os.environ |= {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
sys.stdout.reconfigure(line_buffering=True)
sys.argv = words
runpy.run_module(words[0], run_name="__main__", alter_sys=True)
'''


def take(study: Path) -> Path:
    """The folder of the copy, which is made if the study has none of this code yet.

    Args:
        study: the study's folder.
    """
    target = study / "code" / code.digest()
    if target.is_dir():
        return target
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    for path in code.files_of(code.PACKAGE):
        copy = part / code.PACKAGE.name / path.relative_to(code.PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (part / code.START).write_text(START)
    (part / code.NOTE).write_text(json.dumps({"git": code.git_commit(), "code": target.name}) + "\n")
    try:
        os.replace(part, target)
    except OSError:  # another call has just made it
        shutil.rmtree(part)
    return target
