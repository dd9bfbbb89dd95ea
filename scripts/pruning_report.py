#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turn pruning.json, which `language_model prune` writes, into a page.

The page is one HTML file with its figures inside. The figures need
matplotlib (scripts/requirements.txt); --markdown needs Python alone.
"""

import argparse
import sys
from pathlib import Path

from report import pruning
from report.results import ResultsError
from whole_file import write_text


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="scripts/pruning_report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, metavar="PRUNING.json")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.html", help="write the page")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args(arguments)
    if not (options.output or options.markdown):
        parser.error("nothing to do: give -o FILE.html or --markdown")
    try:
        read = pruning.load(options.results)
        if options.markdown:
            print(pruning.markdown(read))
        if options.output:
            write_text(options.output, pruning.html(read))
    except ModuleNotFoundError as error:
        print(f"pruning_report: {error.name} is missing: pip install -r scripts/requirements.txt", file=sys.stderr)
        return 1
    except (ResultsError, OSError) as error:
        print(f"pruning_report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
