# SPDX-License-Identifier: MIT
"""What a run of benchmarks/dispatch shows, in sentences with their numbers."""

from math import prod
from statistics import median

from .dispatch_results import margin, measured, points, ranking, uncertainty
from .results import unsteady_limits

NOISY = 0.05  # of a median: beyond it strategies that differ by a few percent cannot be told apart


def percent(value):
    return f"{100 * value:.0f} %" if abs(value) >= 0.1 else f"{100 * value:.1f} %"


def place(cell):
    threads = f"{cell['threads']} thread{'s' if cell['threads'] > 1 else ''}"
    words = f"{cell['shape']}, {cell['format']}, {cell['tokens']} token{'s' if cell['tokens'] > 1 else ''}, {cell['load']}"
    return f"{words}, {threads}" if cell["phase"] == "forward" else f"{words}, {threads}, training"


def unreliable(results):
    """Why nothing of this run may be quoted; "" where there is no such reason."""
    cells = measured(results)
    entries = [
        {"peak_gflops": 1e-9 * cell["peak"], "dram_gbs": 1e-9 * cell["dram"], "threads": cell["threads"],
         "dtype": cell["format"]}
        for cell in cells
    ]  # fmt: skip
    reasons = unsteady_limits(entries)
    noise = median(uncertainty(cell) for cell in cells) if cells else 0
    if noise > NOISY:
        reasons.append(f"half of the medians are uncertain by more than {percent(noise)}")
    machines = {(run["run"], run["threads"]) for run in results["runs"]}
    if len(machines) > 1:
        reasons.append("its parts were measured on different machines")
    return "; ".join(reasons)


def winners(results):
    told = wins = 0
    by_strategy, closest = {}, []
    for strategies in points(measured(results)).values():
        found = margin(strategies)
        if found is None:
            continue
        wins += 1
        if found[2]:
            told += 1
            by_strategy.setdefault(found[0]["strategy"], []).append(found[1])
        closest.append(found[1])
    if not wins:
        return ""
    text = f"At {told} of {wins} points the quickest strategy can be told from the next one"
    if by_strategy:
        named = sorted(by_strategy.items(), key=lambda item: -len(item[1]))
        text += ": " + ", ".join(f"{name} at {len(ahead)}, by {percent(median(ahead))} in the median" for name, ahead in named)
    return f"{text}. Half of all margins are below {percent(median(closest))}."


def loss_of(picker, strategies):
    """(time of a picker ÷ that of the best strategy − 1, that strategy's cell). Strategies take turns, and a time counts as
    its share of its round, so that a slow moment of the machine counts for all of them. The quickest one by half of the
    rounds is judged by the other half, both ways: the least of several uncertain times is no fair one to compare with."""
    halves = ("share_of_even_rounds", "share_of_odd_rounds")
    racing = [cell for cell in ranking(strategies) if halves[0] in cell]
    ratios = []
    for chosen_by, judged_by in (halves, halves[::-1]):
        best = min(racing, key=lambda cell: cell[chosen_by])
        ratios.append(strategies[picker][judged_by] / best[judged_by])
    return sum(ratios) / 2 - 1, best


def losses_of(picker, results):
    """[(loss, the best strategy's cell, the picker's)] of all points."""
    return [
        (*loss_of(picker, strategies), strategies[picker])
        for strategies in points(measured(results)).values()
        if "share_of_even_rounds" in strategies.get(picker, {}) and any("share_of_even_rounds" in c for c in ranking(strategies))
    ]


def beside(results, other):
    """What `automatic` picked, where one run says which strategy is best and the other by how much, both ways: noise that
    all rounds of a run share is told from a better strategy."""
    halves, losses = ("share_of_even_rounds", "share_of_odd_rounds"), []
    of_other = points(measured(other))
    for point, strategies in points(measured(results)).items():
        runs = [
            {cell["strategy"]: sum(cell[half] for half in halves) for cell in ranking(own) if halves[0] in cell}
            for own in (strategies, of_other.get(point, {}))
        ]
        both, picked = set(runs[0]) & set(runs[1]), strategies.get("automatic", {}).get("picked")
        if picked in both:
            bests = [min(both, key=run.get) for run in runs]
            ratios = [judge[picked] / judge[best] for judge, best in zip(runs, reversed(bests))]
            losses.append((prod(ratios) ** 0.5 - 1, strategies["automatic"]))
    if not losses:
        return "There is no point where both runs measured what automatic picked."
    loss, own = max(losses, key=lambda entry: entry[0])
    return (
        f"Where one run says which strategy is best and the other by how much, what automatic picked is within 3 % at "
        f"{sum(loss <= 0.03 for loss, _ in losses)} of {len(losses)} points. It is furthest off with {place(own)}: {percent(loss)}."
    )


def kinds_of_points(entries, held_out):
    """[(words, entries)]: those at points that the model was made with, and those at held-out ones, where there are any."""
    known, other = [e for e in entries if not held_out(e)], [e for e in entries if held_out(e)]
    return [(words, own) for words, own in (("", known), (" that are held out (other widths and loads)", other)) if own]


def picker(name, words, results):
    losses = losses_of(name, results)
    if not losses:
        return ""
    parts = [
        f"{percent(sum(loss <= 0.03 for loss, _, _ in own) / len(own))} of {len(own)} points{kind}"
        for kind, own in kinds_of_points(losses, lambda entry: entry[2].get("held_out"))
    ]
    loss, best, own = max(losses, key=lambda entry: entry[0])
    return (
        f"{words} is within 3 % of the best strategy at {', and at '.join(parts)}. It is furthest off with {place(own)}: "
        f"{percent(loss)} slower than {best['strategy']}{', picking ' + own['picked'] if own.get('picked') else ''}."
    )


def automatic(results):
    text = picker("automatic", "dispatch::automatic by its cost model", results)
    if not text:
        return ""
    noise = median(uncertainty(own) for _, _, own in losses_of("automatic", results))
    return (
        f"{text} (A median is uncertain by {percent(noise)}; which strategy is best is told by one half of the rounds, by how "
        "much by the other.)"
    )


def tuned(results):
    return picker("tuned", "By a table that was tuned on even and skewed batches of 1 to 256 tokens it", results)


def model(results):
    ratios = [(cell["predicted"] / cell["seconds"], cell) for cell in measured(results) if cell.get("predicted")]
    if not ratios:
        return ""
    parts = [
        f"{percent(sum(0.75 <= ratio <= 1.25 for ratio, _ in own) / len(own))} of {len(own)} times{kind}"
        for kind, own in kinds_of_points(ratios, lambda entry: entry[1].get("held_out"))
    ]
    ratio, cell = max(ratios, key=lambda entry: max(entry[0], 1 / entry[0]))
    return (
        f"The cost model predicts {', and '.join(parts)}, within 25 %. Its worst prediction is {ratio:.2f} times the measured "
        f"time: {cell['strategy']} with {place(cell)}."
    )


def skew(results):
    """The best time with a load ÷ that with the uniform one, at the most tokens that both have."""
    best = {point: ranking(strategies)[0] for point, strategies in points(measured(results)).items() if ranking(strategies)}
    found = []
    for point, cell in best.items():
        shape, form, tokens, load, phase, threads = point
        even = best.get((shape, form, tokens, "uniform", phase, threads))
        if even and load != "uniform":
            found.append((tokens, cell["seconds"] / even["seconds"], cell))
    if not found:
        return ""
    most = max(tokens for tokens, _, _ in found)
    _, ratio, cell = max((entry for entry in found if entry[0] == most), key=lambda entry: entry[1])
    _, low, cheap = min((entry for entry in found if entry[0] == most), key=lambda entry: entry[1])
    return (
        f"With {most} tokens, skewed loads take {low:.2f} ({cheap['load']} on {cheap['shape']}) to {ratio:.2f} "
        f"({cell['load']} on {cell['shape']}) times as long as the uniform one, each with its best strategy."
    )


def memory(results):
    most = max((cell["tokens"] for cell in measured(results)), default=0)
    cells = [cell for cell in measured(results) if cell["tokens"] == most and cell["phase"] == "forward" and cell["workspace"]]
    by_strategy = {}
    for cell in cells:
        by_strategy.setdefault(cell["strategy"], []).append(cell["workspace"])
    if len(by_strategy) < 2:
        return ""
    middle = {strategy: median(values) for strategy, values in by_strategy.items()}
    least, largest = min(middle, key=middle.get), max(middle, key=middle.get)
    if middle[least] == middle[largest]:
        return ""
    return (
        f"With {most} tokens, {least} takes the least memory, {middle[least] / 1e6:.1f} MB in the median over shapes and "
        f"loads, and {largest} the most, {middle[largest] / 1e6:.1f} MB."
    )


def capacity(results):
    """By rows against by width, at the factor 1.25 on the shape whose widths differ most."""
    def spread(shape):
        widths = results["shapes"].get(shape, {}).get("widths") or [1]
        mean = sum(widths) / len(widths)
        return (sum((width - mean) ** 2 for width in widths) / len(widths)) ** 0.5 / mean if mean else 0

    entries = [entry for entry in results["capacity"] if entry["factor"] == 1.25 and entry["load"] == "uniform"]
    if not entries:
        return ""
    shape = max((entry["shape"] for entry in entries), key=spread)
    own = {entry["capacity"]: entry for entry in entries if entry["shape"] == shape}
    if len(own) < 2:
        return ""
    rows, width = own["by_factor"], own["by_width"]
    return (
        f"On {shape} (spread of widths {spread(shape):.2f}, even load, factor 1.25), a capacity by rows drops "
        f"{percent(rows['dropped'])} of the entries and its busiest expert has {rows['imbalance']:.1f} times the mean FLOPs; "
        f"one by width drops {percent(width['dropped'])} with {width['imbalance']:.1f} times the mean. Padding wastes "
        f"{percent(rows['wasted_flops'])} and {percent(width['wasted_flops'])} of the FLOPs."
    )


def failures(results):
    broken = [cell for cell in results["cells"] if cell.get("error")]
    words = [f"{entry['refused']} breaks the laws of dispatch and was not measured." for entry in results["refused"]]
    if broken:
        words.append(f"{len(broken)} cells failed, the first one is {broken[0]['name']}: {broken[0]['error']}.")
    return " ".join(words)


def findings(results):
    """Sentences, the most important first."""
    told = (winners, automatic, tuned, model, skew, capacity, memory, failures)
    return [text for text in (tell(results) for tell in told) if text]
