#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Make a file ready for benchmarks/dispatch, or turn what it wrote into JSON, CSV, a page and a map.

The page is one HTML file that needs nothing else. Python's own library is enough for all of it.
"""

import argparse
import json
import sys
from pathlib import Path

from measurements import dispatch_findings, dispatch_map, dispatch_page
from measurements.dispatch_results import COLUMNS, csv_text, prepare, read
from whole_file import write_text


def main(arguments=None, program="dispatch", text=__doc__, page=dispatch_page.html, columns=COLUMNS, table=None):
    parser = argparse.ArgumentParser(prog=f"scripts/{program}_report.py", description=text,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("cells", type=Path, metavar="CELLS.jsonl", help=f"what scripts/bench {program} writes or wrote")
    parser.add_argument("--prepare", metavar="SELECTION",
                        help="keep the file where its run had this selection and has not ended, else begin a new one; "
                             "print how many cells are there")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE.json")
    parser.add_argument("--csv", type=Path, metavar="FILE.csv")
    parser.add_argument("--report", type=Path, metavar="FILE.html")
    parser.add_argument("--map", type=Path, metavar="FILE.svg", help="the map of winners alone, where there is one")
    if not table:
        parser.add_argument("--beside", type=Path, metavar="OTHER.jsonl",
                            help="print how good the picks of automatic are, each run judged by another one")  # fmt: skip
    if table:
        parser.add_argument("--markdown", type=Path, metavar="FILE.md", help="the table of ratios alone")
    parser.add_argument("--command", default="", help="how it was run, for the page")
    options = parser.parse_args(arguments)
    try:
        if options.prepare is not None:
            print(prepare(options.cells, options.prepare))
            return 0
        results = read(options.cells)
        if not table and options.beside:
            print(dispatch_findings.beside(results, read(options.beside)))
        if options.json:
            write_text(options.json, json.dumps(results, indent=1))
        if options.csv:
            write_text(options.csv, csv_text(results, columns))
        if options.report:
            write_text(options.report, page(results, options.command))
        if table and options.markdown:
            write_text(options.markdown, table(results, options.command))
        if options.map and (drawn := dispatch_map.svg(results, options.command)):
            write_text(options.map, drawn)
    except (KeyError, TypeError) as error:
        print(f"{program}_report: {options.cells} is not what benchmarks/{program} writes: {error!r}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{program}_report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
