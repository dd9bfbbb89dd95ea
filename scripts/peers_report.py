#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Make a file ready for scripts/bench peers, or turn what it wrote into JSON, CSV, a page and a table in Markdown.

The page is one HTML file that needs nothing else. Python's own library is enough for all of it.
"""

import sys

import dispatch_report
from measurements import peers_page
from measurements.peers_findings import COLUMNS, markdown


def main(arguments=None):
    return dispatch_report.main(arguments, "peers", __doc__, peers_page.html, COLUMNS, markdown)


if __name__ == "__main__":
    sys.exit(main())
