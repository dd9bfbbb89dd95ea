# SPDX-License-Identifier: MIT
"""To import before what draws: goes over to build/venv where this Python has no matplotlib, or skips the test."""

import os
import sys
from pathlib import Path

from paths import ROOT

try:
    import matplotlib  # noqa: F401
except ModuleNotFoundError:
    # The environment of the demo and the benchmarks has it, once one of them has run; 77 tells ctest: skipped.
    python = ROOT / "build" / "venv" / "bin" / "python"
    if not python.exists() or Path(sys.prefix) == python.parents[1]:
        print("skipped: matplotlib is missing (scripts/requirements.txt)")
        sys.exit(77)
    os.execv(python, [str(python), "-B", *sys.argv])
