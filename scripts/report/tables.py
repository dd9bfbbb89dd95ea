# SPDX-License-Identifier: MIT
"""The report's tables, as HTML and as Markdown.

A cell is a text, or a pair of a text and a remark that is set small below it.
"""

from dataclasses import dataclass
from html import escape

from .findings import findings, flops_text, losses_text, machine_text, signed
from .noise import INSIDE, UNKNOWN, compare, noise_of
from .variants import (
    baseline,
    controls_of,
    final,
    final_mean,
    final_row,
    is_dense,
    loss_ablation,
    main_variant,
    mean,
    sample_std,
    size_ablation,
    title,
)

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    head: list
    rows: list
    text_columns: int = 1  # the first columns are words, the others numbers
    strong_row: int = -1


def thousands(value):
    if value is None:
        return NOTHING
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    return f"{value / 1e3:.1f} k" if value >= 1e3 else f"{value:.0f}"


def in_order(values, form):
    return " · ".join(form(value) for value in values) if values else NOTHING


def widths_text(variant):
    widths = [f"{width:g}" for width in variant["widths"]]
    if is_dense(variant):
        return f"one feed-forward network of {widths[0]}"
    return f"{len(widths)} × {widths[0]}" if len(set(widths)) == 1 else ", ".join(widths)


def router_text(variant):
    if is_dense(variant):
        return ""
    value = variant.get("router_value")
    return f"{variant.get('router') or ''}{f' {value:g}' if value is not None else ''}"


def settings_text(variant):
    return "; ".join(part for part in (widths_text(variant), router_text(variant), losses_text(variant)) if part)


def bits_text(variant, noise):
    values = final(variant, "bits_per_byte")
    if len(values) > 1:
        return f"{mean(values):.3f} ± {sample_std(values):.3f}", f"{len(values)} runs"
    if not noise.usable:
        return f"{values[0]:.3f}", "1 run"
    return f"{values[0]:.3f} ± {noise.std:.3f}", f"1 run, {'pooled' if noise.estimated else 'assumed'} spread"


def width_text(variant):
    measured, predicted = final_mean(variant, "activated_width"), variant.get("predicted_activated_width")
    return (
        NOTHING if measured is None else f"{measured:.1f}",
        f"predicted {predicted:.1f}" if predicted is not None else "no prediction",
    )


def expert_parameters_per_layer(results, variant):
    """3 · d · activated width: the three matrices of a gated expert."""
    d = (results.get("model") or {}).get("d_model")
    rows = final_row(variant, "activated_width_per_layer")
    return [3 * d * width for width in rows] if d else []


def variant_table(results):
    noise, main = noise_of(results), main_variant(results)
    rows = []
    for variant in results["variants"]:
        tokens, speed = final_mean(variant, "tokens"), final_mean(variant, "tokens_per_second")
        rows.append(
            [
                (title(variant), settings_text(variant)),
                bits_text(variant, noise),
                (
                    thousands(final_mean(variant, "activated_parameters")),
                    in_order(expert_parameters_per_layer(results, variant), thousands),
                ),
                width_text(variant),
                flops_text(final_mean(variant, "flops_per_token")),
                NOTHING if tokens is None else f"{tokens / 1e6:.2f} M",
                NOTHING if speed is None else f"{speed:,.0f}",
            ]
        )
    head = [
        "Variant",
        ("Bits per byte, held out", "± standard deviation"),
        ("Activated parameters", "experts, by layer"),
        ("Activated width", "mean over layers"),
        ("FLOPs per token", "training"),
        "Tokens seen",
        "Tokens/s",
    ]
    strong = results["variants"].index(main) if main is not None else -1
    return Table(head, rows, strong_row=strong)


def findings_table(results):
    rows = [[f.question, f.paper, f.here, f.verdict] for f in findings(results)]
    return Table(["Question", "The paper", "This run", "Verdict"], rows, text_columns=4)


def difference_cell(difference, name_the_other=False):
    """The difference, and below it how far chance alone goes."""
    words = {INSIDE: "inside the noise", UNKNOWN: "not judged"}.get(difference.verdict, difference.verdict)
    other = difference.reference
    named = f"to {mean(final(other, 'bits_per_byte')):.3f} of {title(other)}; " if name_the_other else ""
    return signed(difference.value), f"{named}noise ±{difference.limit:.3f}: {words}"


def ablation_table(results, variants):
    noise, reference = noise_of(results), baseline(results)
    rows = []
    for variant in variants:
        controls = controls_of(results, variant)
        against = compare(variant, reference, noise) if reference is not None and variant is not reference else None
        rows.append(
            [
                (title(variant), settings_text(variant)),
                bits_text(variant, noise),
                width_text(variant),
                difference_cell(compare(variant, controls[0], noise), name_the_other=True) if controls else NOTHING,
                difference_cell(against) if against is not None else NOTHING,
            ]
        )
    head = [
        "Variant",
        "Bits per byte, held out",
        "Activated width",
        "Difference to its own control",
        f"Difference to {title(reference)}" if reference is not None else "Difference",
    ]
    main = main_variant(results)
    return Table(head, rows, strong_row=variants.index(main) if main in variants else -1)


def ablation_tables(results):
    """(heading, table) of each ablation whose variants are in the file."""
    tables = []
    if size_ablation(results):
        tables.append(("Sizes of the experts", ablation_table(results, size_ablation(results))))
    if loss_ablation(results):
        tables.append(("Auxiliary losses", ablation_table(results, loss_ablation(results))))
    shown = [v["name"] for v in [*size_ablation(results), *loss_ablation(results)]]
    others = [
        v
        for v in results["variants"]
        if v["name"] not in shown
        and not v.get("control_of")
        and v is not baseline(results)
        and v is not main_variant(results)
    ]
    if others:
        tables.append(("Other variants", ablation_table(results, others)))
    return tables


# ---- output ----


def cell_html(cell, tag, classes):
    main, remark = cell if isinstance(cell, tuple) else (cell, None)
    small = f"<small>{escape(remark)}</small>" if remark else ""
    attribute = f' class="{classes}"' if classes else ""
    return f"<{tag}{attribute}>{escape(main)}{small}</{tag}>"


def html(table):
    def row(cells, tag):
        return "".join(
            cell_html(cell, "th" if index == 0 else tag, "" if index < table.text_columns else "n")
            for index, cell in enumerate(cells)
        )

    body = "\n".join(
        f"<tr{' class=strong' if index == table.strong_row else ''}>{row(cells, 'td')}</tr>"
        for index, cells in enumerate(table.rows)
    )
    return (
        '<div class="scroll" tabindex="0"><table>\n'
        f"<thead><tr>{row(table.head, 'th')}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def cell_markdown(words):
    for character in "\\|<>`*_":
        words = words.replace(character, "\\" + character)
    return words.replace("\n", " ")


def markdown(results):
    """The variants as a narrow table, with the command and the machine it came from."""
    noise, table = noise_of(results), variant_table(results)
    head = [cell[0] if isinstance(cell, tuple) else cell for cell in table.head]
    remarked = (head.index("Bits per byte, held out"), head.index("Activated width"))
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for cells in table.rows:
        # A README has no room for most of the small remarks.
        words = [cell[0] if isinstance(cell, tuple) else cell for cell in cells]
        for column in remarked:
            words[column] += f" ({cells[column][1]})"
        lines.append("| " + " | ".join(map(cell_markdown, words)) + " |")
    command = f"`{results['command']}`" if results.get("command") else "a run"
    lines += [
        "",
        f"From {command} on {machine_text(results)}, {flops_text(results['budget_flops'])} for each run. "
        f"{noise.sentence()}",
    ]
    return "\n".join(lines)
