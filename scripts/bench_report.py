#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Gather what the benchmark programs wrote into results.json, and turn that into a report.

The report is one HTML file with all figures inside; it needs matplotlib
(scripts/requirements.txt).
"""

import argparse
import json
import sys
from pathlib import Path

from measurements.results import ResultsError, gather
from whole_file import write_text


def machine_option(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text} should read NAME=VALUE")
    return name, value


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="scripts/bench_report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="RAW.json", help="what the programs wrote")
    parser.add_argument("--results", type=Path, required=True, metavar="FILE.json", help="write everything together")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write the report")
    parser.add_argument("--command", default="", help="how it was run, for the report")
    parser.add_argument("--machine", type=machine_option, action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args(arguments)
    try:
        results = gather(options.files, options.command, options.machine)
        write_text(options.results, json.dumps(results, indent=1))
        if options.report:
            from measurements import page  # needs matplotlib, which the results do not

            write_text(options.report, page.html(results))
    except ModuleNotFoundError as error:
        print(f"bench_report: {error.name} is missing: pip install -r scripts/requirements.txt", file=sys.stderr)
        return 1
    except (ResultsError, OSError) as error:
        print(f"bench_report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
