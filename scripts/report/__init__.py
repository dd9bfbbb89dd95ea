# SPDX-License-Identifier: MIT
"""The report on a comparison of variants.

results   reads and checks results.json
variants  what a variant is, and which part it plays
noise     how much chance moves a result, and which differences are larger
findings  what the numbers say, in words
tables    the tables, as HTML and as Markdown
plotting  the look of the figures, and how a figure becomes SVG
series    curves from the history of runs, and which variants stand together
figures   the figures, each with its caption; token_figures: those about tokens
document  the page as such: sections, panels, figures
page      puts all of it into one HTML file

Only plotting, series, the figures and page need matplotlib.
"""
