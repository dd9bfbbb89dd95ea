#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turn results.json, which `language_model compare` writes, into a report.

The report is one HTML file with all figures inside. The figures need
matplotlib (scripts/requirements.txt); --markdown needs Python alone.
"""

import argparse
import sys
from pathlib import Path

from report import tables
from report.results import ResultsError, load
from whole_file import write_text, writing


def write_page(results, path):
    from report import page  # needs matplotlib, which --markdown must not

    write_text(path, page.html(results))


def write_figure(results, path):
    from report import figures, plotting

    drawing = figures.readme_figure(results)
    if drawing is None:
        raise ResultsError("the file holds no history of an unequal layer, which the figure shows")
    with writing(path) as partial:
        plotting.save(drawing, partial)


def picture(name):
    path = Path(name)
    if path.suffix not in (".svg", ".png"):
        raise argparse.ArgumentTypeError(f"{name} should end in .svg or .png")
    return path


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="scripts/report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, metavar="RESULTS.json")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.html", help="write the report")
    parser.add_argument("--markdown", action="store_true", help="print the table of variants as Markdown")
    parser.add_argument("--figure", type=picture, metavar="FILE.svg|png", help="write the figure of the README")
    options = parser.parse_args(arguments)
    if not (options.output or options.markdown or options.figure):
        parser.error("nothing to do: give -o FILE.html, --markdown or --figure FILE")
    try:
        results = load(options.results)
        if options.markdown:
            print(tables.markdown(results))
        if options.output:
            write_page(results, options.output)
        if options.figure:
            write_figure(results, options.figure)
    except ModuleNotFoundError as error:
        print(f"report: {error.name} is missing: pip install -r scripts/requirements.txt", file=sys.stderr)
        return 1
    except (ResultsError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
