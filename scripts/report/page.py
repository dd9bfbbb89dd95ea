# SPDX-License-Identifier: MIT
"""Puts tables, figures and words into one HTML file that needs nothing else.

Everything that comes from the results file goes through `escape`.
"""

from html import escape

from . import document, tables
from .document import figure, folded, section
from .figures import draw_all
from .findings import flops_text, machine_text, summary
from .noise import noise_of
from .variants import is_dense, main_variant, title

HEADLINE = "Experts of unequal width: a comparison at equal training compute"


def variant_section(results):
    noise = noise_of(results)
    body = tables.html(tables.variant_table(results))
    spread = "over its seeds (n − 1)"
    if not noise.estimated and noise.usable:
        spread += f"; for a single run the assumed {noise.std:.3f}"
    body += (
        f'\n<p class="prose">Held-out text is never trained on. ± is the standard deviation of one run {spread}. '
        "Activated width is the sum of the widths of the experts that a token uses. The predicted width is "
        "<i>k</i>·<i>N</i>/Σ(1/<i>h<sub>i</sub></i>), <i>k</i> times the harmonic mean; with equal widths it is "
        "<i>k</i>·<i>h</i>. Activated parameters are counted for the whole model; below, the experts' part in each "
        "layer, 3·<i>d</i>·width. A cheaper variant sees more tokens for the same FLOPs: compare the column of tokens "
        "before crediting a lower loss to the layer.</p>"
    )
    return section("variants", "The variants", body)


def findings_section(results):
    table = tables.findings_table(results)
    if not table.rows:
        return ""
    body = tables.html(table) + (
        '\n<p class="prose">A difference counts if it is larger than chance makes it in 95 % of repetitions, given the '
        "spread between seeds and the number of runs; among many comparisons one in twenty crosses that limit by chance. "
        "The paper trained models of 0.4 to 3 billion parameters (Wang et al., arXiv 2408.10681); this model is "
        "thousands of times smaller, so a disagreement says what holds at this size, and no more.</p>"
    )
    return section("paper", "Beside the paper", body)


def ablation_section(results):
    found = tables.ablation_tables(results)
    if len(results["variants"]) <= 3 or not found:
        return ""
    body = "\n".join(f"<h3>{escape(heading)}</h3>\n{tables.html(table)}" for heading, table in found)
    body += (
        '\n<p class="prose">A variant\'s own control is a homogeneous layer whose experts are just wide enough for the '
        "same activated width. Below each difference stands how far apart two such means lie by chance (95 %): a difference "
        "inside that limit means nothing.</p>"
    )
    return section("ablations", "Ablations", body)


def visible(token):
    """A token as readable text: blanks and line ends become signs."""
    for hidden, sign in (("▁", "␣"), (" ", "␣"), ("\n", "⏎"), ("\t", "⇥")):
        token = token.replace(hidden, sign)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in token) or "∅"


def expert_box(width, number, tokens):
    marks = []
    for entry in tokens:
        hint = ", ".join(
            words
            for words in (
                f"{entry['count']:g} times" if entry.get("count") is not None else "",
                f"{entry['lift']:.1f} times as often as in the text at large" if entry.get("lift") is not None else "",
            )
            if words
        )
        marks.append(f'<code title="{escape(hint, quote=True)}">{escape(visible(entry["token"]))}</code>')
    lifts = [entry["lift"] for entry in tokens if entry.get("lift") is not None]
    ends = list(dict.fromkeys(f"{lift:.1f}" for lift in (max(lifts), min(lifts)))) if lifts else []
    lift = f"<small>lift {' to '.join(ends)}</small>" if ends else ""
    return f'<div class="expert"><b>Expert {number}, width {width:g}{lift}</b>{" ".join(marks) or "no token"}</div>'


def top_token_section(results):
    main = main_variant(results)
    blocks = []
    for variant in sorted(results["variants"], key=lambda v: v is not main):
        layers = variant["runs"][0].get("top_tokens") or []
        for layer, experts in enumerate(layers):
            # An expert more than there are widths would be an error of the file; it is not shown.
            boxes = [expert_box(w, i + 1, t) for i, (w, t) in enumerate(zip(variant["widths"], experts))]
            body = f'<div class="experts">{"".join(boxes)}</div>'
            if is_dense(variant) or not boxes:
                continue
            words = f"{title(variant)}, layer {layer + 1}"
            first = variant is main or main is None
            blocks.append(f"<h3>{escape(words)}</h3>\n{body}" if first else folded(words, body))
    if not blocks:
        return ""
    caption = (
        '<p class="prose">The tokens that each expert gets most out of proportion (first seed, '
        "held-out text), strongest first. ␣ is a blank. Lift: how many times as often as in the text at large.</p>"
    )
    return section("tokens", "Top tokens per expert", caption + "\n" + "\n".join(blocks))


def sample_section(results):
    parts = []
    for variant in results["variants"]:
        sample = variant["runs"][0].get("sample")
        if sample:
            parts.append(f"<h3>{escape(title(variant))}</h3>\n<blockquote>{escape(sample)}</blockquote>")
    caption = (
        '<p class="prose">One sample per variant, from its first seed. Models of this size learn spelling, the form of '
        "an entry and a little grammar.</p>"
    )
    return section("samples", "Generated text", caption + "\n" + "\n".join(parts)) if parts else ""


def setup_section(results):
    machine, corpus, model = results["machine"], results.get("corpus") or {}, results.get("model") or {}

    def counted(value, words):
        return f"{value:,} {words}" if value is not None else ""

    facts = [
        ("Command", results.get("command")),
        ("Machine", machine_text(results)),
        ("Compiler", " ".join(part for part in (machine.get("compiler"), machine.get("flags")) if part)),
        ("Text", ", ".join(part for part in (
            corpus.get("name"),
            counted(corpus.get("train_bytes"), "bytes to train on"),
            counted(corpus.get("heldout_bytes"), "bytes held out"),
            counted(corpus.get("eval_tokens"), "tokens in the evaluation"),
        ) if part)),
        ("Tokens", ", ".join(part for part in (
            counted(corpus.get("vocabulary"), "in the vocabulary"),
            f"{corpus['bytes_per_token']:.2f} bytes each" if corpus.get("bytes_per_token") else "",
        ) if part)),
        ("Model", ", ".join(part for part in (
            f"width {model['d_model']}" if model.get("d_model") else "",
            counted(model.get("blocks"), "blocks"),
            counted(model.get("heads"), "heads"),
            f"context {model['context']}" if model.get("context") else "",
            f"batch {model['batch']}" if model.get("batch") else "",
            counted(model.get("parameters_without_experts"), "parameters without the experts"),
        ) if part)),
        ("Budget of a run", flops_text(results["budget_flops"])),
        ("Noise", noise_of(results).sentence()),
    ]  # fmt: skip
    rows = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    return section("setup", "How it was run", f'<dl class="facts">\n{rows}\n</dl>')


def html(results):
    """The whole page."""
    figures = [(drawn.name, drawn.heading, figure(drawn)) for drawn in draw_all(results)]
    sections = [
        ("variants", "Variants", variant_section(results)),
        ("paper", "Beside the paper", findings_section(results)),
        ("ablations", "Ablations", ablation_section(results)),
        *figures,
        ("tokens", "Top tokens", top_token_section(results)),
        ("samples", "Generated text", sample_section(results)),
        ("setup", "Setup", setup_section(results)),
    ]
    return document.page(HEADLINE, summary(results), sections)
