# SPDX-License-Identifier: MIT
"""The report on the benchmarks.

results   gathers what the programs wrote into one results.json, and reads it
figures   the plots: efficiency, competitors, unequal against equal widths, training
page      puts plots and tables into one HTML file; the look is that of the package report

dispatch_results, dispatch_findings, dispatch_charts and dispatch_page are the same for dispatch strategies, peers_findings and
peers_page, which share much with them, for hmoe and its peers; they need no
matplotlib.
"""
