# SPDX-License-Identifier: MIT
"""What the numbers say, and what they do not say, in words."""

from dataclasses import dataclass

from .noise import ABOVE, BELOW, INSIDE, UNKNOWN, compare, noise_of
from .variants import (
    baseline,
    best_equal_of_width,
    controls_of,
    equals_of_router,
    final_mean,
    final_row,
    is_dense,
    is_heterogeneous,
    layer_mean_share,
    loss_ablation,
    losses,
    main_variant,
    mean,
    columns_mean,
    predicted_share,
    router,
    size_ablation,
    title,
    width_at_start,
    width_pattern,
)

# The width has fallen, or risen, if it did so by more than this part.
NOTICEABLE = 0.02
# A correlation that is weaker explains less than 4 % of the variation.
WEAK_CORRELATION = 0.2


def signed(value, digits=3):
    return f"{'−' if value < 0 else '+'}{abs(value):.{digits}f}"


def flops_text(flops):
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6), ("kFLOP", 1e3)):
        if flops >= size:
            return f"{flops / size:.3g} {unit}"
    return f"{flops:.3g} FLOP"


def runs_text(variant):
    return "1 run" if len(variant["runs"]) == 1 else f"{len(variant['runs'])} runs"


def reading(difference):
    """One difference as words that never claim more than the seeds allow."""
    size = f"{signed(difference.value)} bits per byte"
    if difference.verdict == INSIDE:
        return f"{size}, inside the noise (limit ±{difference.limit:.3f})"
    if difference.verdict == UNKNOWN:
        return f"{size}, not judged at this budget"
    return f"{size}, {difference.verdict} by more than the noise (limit ±{difference.limit:.3f})"


@dataclass(frozen=True)
class Finding:
    question: str
    paper: str
    here: str
    verdict: str
    brief: str = ""  # what was seen, as a part of a sentence


AGREES, DIFFERS, OPEN = "agrees", "differs", "not decided"
EXPECTED = {True: AGREES, False: DIFFERS}


def verdict_of(difference, expected):
    if difference.verdict in (INSIDE, UNKNOWN):
        return OPEN
    return EXPECTED[difference.verdict == expected]


def against_baseline(results, noise, main, found):
    reference = baseline(results)
    if reference is not None:
        difference = compare(main, reference, noise)
        found.append(
            Finding(
                "Loss at equal training FLOPs, heterogeneous against homogeneous",
                "heterogeneous is better, but only from about 2·10¹⁹ FLOPs on",
                reading(difference),
                verdict_of(difference, BELOW),
                f"the heterogeneous layer has the {difference.verdict} loss at equal compute",
            )
        )
    for control in controls_of(results, main):
        difference = compare(main, control, noise)
        found.append(
            Finding(
                "The same against a homogeneous layer of equal activated width",
                "has no such control",
                reading(difference),
                {INSIDE: "no difference seen", UNKNOWN: OPEN}.get(difference.verdict, f"{difference.verdict} loss"),
            )
        )


def width_finding(main, found):
    start, end = width_at_start(main), final_mean(main, "activated_width")
    if start is None or end is None:
        return
    here = f"from {start:.0f} to {end:.1f}"
    if main.get("predicted_activated_width") is not None:
        here += f" (predicted {main['predicted_activated_width']:.1f})"
    found.append(
        Finding(
            "Activated width during training, with the parameter penalty",
            "falls, and with it the activated parameters",
            here,
            EXPECTED[end < start * (1 - NOTICEABLE)],
            f"the activated width {'falls' if end < start * (1 - NOTICEABLE) else 'does not fall'} during training",
        )
    )


def share_finding(main, found):
    measured, predicted = layer_mean_share(main), predicted_share(main)
    if not measured:
        return
    order = sorted(range(len(measured)), key=lambda expert: main["widths"][expert])
    half = len(order) // 2
    narrow, wide = (sum(measured[expert] for expert in part) for part in (order[:half], order[-half:]))
    here = f"the narrower half of the experts gets {100 * narrow:.0f} % of the activations"
    if predicted:
        furthest = max(abs(m / p - 1) for m, p in zip(measured, predicted) if p > 0)
        here += f"; shares lie within {100 * furthest:.0f} % of k·(1/h)/Σ(1/h)"
    found.append(
        Finding(
            "Which experts are used, with the parameter penalty",
            "narrow experts become frequent",
            here,
            EXPECTED[narrow > wide],
            f"narrow experts are used {'more' if narrow > wide else 'less'} often than wide ones",
        )
    )


def loss_findings(results, noise, main, found):
    for variant in loss_ablation(results):
        names = set(losses(variant))
        neutral = mean(variant["widths"]) * (variant.get("router_value") or 0)
        neutral += sum((variant.get("shared") or {}).get("widths", [])) if neutral else 0
        if not names and neutral and final_mean(variant, "activated_width") is not None:
            width = final_mean(variant, "activated_width")
            found.append(
                Finding(
                    "Unequal experts without an auxiliary loss",
                    "wide experts win the router",
                    f"activated width {width:.0f}, where equal use of all would give {neutral:.0f}",
                    EXPECTED[width > neutral * (1 + NOTICEABLE)],
                    f"wide experts {'win' if width > neutral * (1 + NOTICEABLE) else 'do not win'} the router without "
                    f"an auxiliary loss",
                )
            )
        if variant is not main and names <= {"load-balance"}:
            difference = compare(variant, main, noise)
            found.append(
                Finding(
                    f"Unequal experts {'with load balance' if names else 'without an auxiliary loss'}, "
                    "loss against the penalty's",
                    "worse than with the penalty",
                    reading(difference),
                    verdict_of(difference, ABOVE),
                    f"unequal experts {'with load balance' if names else 'without an auxiliary loss'} have a "
                    f"{difference.verdict} loss than with the penalty",
                )
            )


def size_findings(results, noise, found):
    strategies = {width_pattern(variant): variant for variant in reversed(size_ablation(results))}
    arithmetic = strategies.get("arithmetic")
    for pattern, name, claim, expected in (
        ("repeated", "Hybrid", "better than arithmetic", BELOW),
        ("geometric", "Geometric", "worse", ABOVE),
    ):
        if arithmetic is not None and pattern in strategies:
            difference = compare(strategies[pattern], arithmetic, noise)
            found.append(
                Finding(
                    f"{name} against arithmetic widths",
                    claim,
                    reading(difference),
                    verdict_of(difference, expected),
                    f"{name.lower()} widths have a {difference.verdict} loss than arithmetic ones",
                )
            )


def router_findings(results, noise, main, found):
    for variant in results["variants"]:
        if router(variant) != "top-p" or not is_heterogeneous(variant):
            continue
        difference = compare(variant, main, noise)
        experts = final_row(variant, "activated_experts_per_layer")
        count = f"; {mean(experts):.2f} experts active per token at the end" if experts else ""
        found.append(
            Finding(
                f"{title(variant)}, loss against top-k",
                "top-p is the better router for unequal experts",
                reading(difference) + count,
                verdict_of(difference, BELOW),
                f"{title(variant)} has a {difference.verdict} loss than top-k",
            )
        )
        # Top-p alone may be what helps: the paper compares unequal experts with top-p to equal ones with top-k.
        for equal in equals_of_router(results, variant):
            difference = compare(variant, equal, noise)
            found.append(
                Finding(
                    f"{title(variant)}, loss against equal experts with the same router ({title(equal)})",
                    "has no such control",
                    reading(difference),
                    {INSIDE: "no difference seen", UNKNOWN: OPEN}.get(difference.verdict, f"{difference.verdict} loss"),
                )
            )


def equal_width_findings(results, noise, found):
    """Each unequal layer beside the best equal one that activates no more."""
    for variant in results["variants"]:
        if not is_heterogeneous(variant):
            continue
        equal = best_equal_of_width(results, variant)
        if equal is None:
            continue
        difference = compare(variant, equal, noise)
        widths = [final_mean(v, "activated_width") for v in (variant, equal)]
        found.append(
            Finding(
                f"{title(variant)} (width {widths[0]:.0f}) against the best equal experts that activate no more: "
                f"{title(equal)} (width {widths[1]:.0f})",
                "has no such control",
                reading(difference),
                {INSIDE: "no difference seen", UNKNOWN: OPEN}.get(
                    difference.verdict, f"equal experts have the {'lower' if difference.value > 0 else 'higher'} loss"
                ),
            )
        )


def dense_finding(results, noise, found):
    dense = next((v for v in results["variants"] if is_dense(v)), None)
    reference = baseline(results)
    if dense is not None and reference is not None:
        difference = compare(reference, dense, noise)
        found.append(
            Finding(
                "Homogeneous experts against the dense model",
                "better",
                reading(difference),
                verdict_of(difference, BELOW),
                f"the homogeneous experts have a {difference.verdict} loss than the dense model",
            )
        )


def difficulty_finding(main, found):
    rows = [(run.get("difficulty") or {}).get("correlation_per_layer") for run in main["runs"]]
    rows = [row for row in rows if row]
    if not rows:
        return
    correlations = columns_mean(rows)
    found.append(
        Finding(
            "Do harder tokens get wider experts?",
            "yes",
            "correlation of width and token loss, by layer: " + ", ".join(signed(value, 2) for value in correlations),
            EXPECTED[min(correlations) > WEAK_CORRELATION],
            "hard tokens get wider experts"
            if min(correlations) > WEAK_CORRELATION
            else "hard tokens do not get wider experts in every layer"
            if max(correlations) > WEAK_CORRELATION
            else "hard tokens do not get wider experts",
        )
    )


def findings(results):
    """Each of the paper's statements that this run can speak about."""
    noise, main, found = noise_of(results), main_variant(results), []
    if not noise.usable:
        return found
    if main is not None:
        against_baseline(results, noise, main, found)
        width_finding(main, found)
        share_finding(main, found)
        difficulty_finding(main, found)
        loss_findings(results, noise, main, found)
        size_findings(results, noise, found)
        router_findings(results, noise, main, found)
        equal_width_findings(results, noise, found)
    dense_finding(results, noise, found)
    return found


def losses_text(variant):
    if is_dense(variant):
        return ""
    words = [
        name.replace("-", " ") + (f" {coefficient:g}" if coefficient is not None else "")
        for name, coefficient in losses(variant).items()
    ]
    return " + ".join(words) or "no auxiliary loss"


def machine_text(results):
    threads = results["machine"].get("threads")
    return results["machine"]["cpu"] + (f" with {threads} thread{'s' if threads != 1 else ''}" if threads else "")


COUNTS = ("One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve")


def what_was_run(results):
    runs = sum(len(variant["runs"]) for variant in results["variants"])
    corpus, model = results.get("corpus") or {}, results.get("model") or {}
    shape = (
        f" with {model['blocks']} blocks of width {model['d_model']}"
        if model.get("blocks") and model.get("d_model")
        else ""
    )
    text = f" on {corpus['name']}" if corpus.get("name") else ""
    if text and corpus.get("train_bytes"):
        text += f" ({corpus['train_bytes'] / 1e6:.3g} MB of text)"
    count = len(results["variants"])
    many = COUNTS[count - 1] if count <= len(COUNTS) else str(count)
    if runs == 1:
        models = f"One small language model{shape} was"
    elif runs == count:
        models = f"{many} variants of a small language model{shape} were"
    else:
        models = f"{many} variants of a small language model{shape} ({runs} runs) were"
    spent = f"until {'it' if runs == 1 else 'each'} had spent {flops_text(results['budget_flops'])}"
    return f"{models} trained{text} {spent}, on {machine_text(results)}."


def comparison_sentence(results, noise, main):
    """The main pair's losses, and whether they differ."""
    partners = [("the homogeneous one", baseline(results))] if baseline(results) is not None else []
    partners += [("the homogeneous control of the same activated width", v) for v in controls_of(results, main)[:1]]
    if not partners or not noise.usable:
        return ""
    differences = [compare(main, partner, noise) for _, partner in partners]
    losses_of_all = [f"the heterogeneous layer ({title(main)}) reached {final_mean(main, 'bits_per_byte'):.3f}"]
    losses_of_all += [f"{words} ({title(v)}) {final_mean(v, 'bits_per_byte'):.3f}" for words, v in partners]
    sentence = f"In bits per byte of held-out text {listed(losses_of_all)}. "
    if all(difference.verdict == INSIDE for difference in differences):
        values = listed([signed(difference.value) for difference in differences])
        limit = min(difference.limit for difference in differences)
        stay = "The differences of {} stay" if len(differences) > 1 else "The difference of {} stays"
        return sentence + stay.format(values) + f" inside the noise of ±{limit:.3f}: no winner."
    judged = [f"against {words} it is {reading(d)}" for (words, _), d in zip(partners, differences)]
    return sentence + f"The heterogeneous layer's difference: {listed(judged)}."


def listed(words):
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def width_sentence(main):
    start, end = width_at_start(main), final_mean(main, "activated_width")
    if not start or end is None:
        return ""
    predicted = main.get("predicted_activated_width")
    beside = f"; {predicted:.1f} was predicted" if predicted is not None else ""
    subject = "The heterogeneous layer's activated width"
    if abs(end / start - 1) <= NOTICEABLE:
        return f"{subject} stayed near {end:.0f}{beside}."
    return f"{subject} {'fell' if end < start else 'rose'} from {start:.0f} to {end:.1f}{beside}."


def equal_width_sentence(results, noise):
    """Whether any unequal layer beats equal experts of its activated width."""
    if not noise.usable:
        return ""
    pairs = [(v, best_equal_of_width(results, v)) for v in results["variants"] if is_heterogeneous(v)]
    differences = [compare(variant, equal, noise) for variant, equal in pairs if equal is not None]
    if len(differences) < 2:
        return ""
    counts = [sum(d.verdict == verdict for d in differences) for verdict in (BELOW, INSIDE, ABOVE)]
    sentence = (
        f"Beside the best equal experts that activate no more, {counts[0]} of {len(differences)} unequal variants have a "
        f"lower loss by more than the noise, {counts[1]} differ by less than it, {counts[2]} have a higher one"
    )
    if all(d.value > 0 for d in differences):
        sentence += ": in the means equal experts beat every unequal variant of their activated width"
    elif counts[0] == 0:
        sentence += ": no unequal variant wins at its activated width"
    return sentence + "."


def paper_sentence(found):
    """Where this run differs from the paper, by the table's own verdicts."""
    differing = [finding.brief for finding in found if finding.verdict == DIFFERS]
    agreeing = [finding.brief for finding in found if finding.verdict == AGREES]
    undecided = sum(finding.verdict == OPEN for finding in found)
    parts = []
    if agreeing:
        parts.append(f"As in the paper, {listed(agreeing)}.")
    if differing:
        parts.append(f"Unlike in the paper, {listed(differing)}.")
    if undecided:
        parts.append(f"The noise leaves {undecided} of the paper's statements undecided.")
    return " ".join(parts)


def summary(results):
    """The first paragraph: what was run, on what, and what was found."""
    noise, main = noise_of(results), main_variant(results)
    sentences = [what_was_run(results)]
    if main is not None:
        sentences.append(comparison_sentence(results, noise, main))
    sentences.append(noise.sentence())
    if main is not None:
        sentences.append(width_sentence(main))
    sentences.append(equal_width_sentence(results, noise))
    sentences.append(paper_sentence(findings(results)))
    return " ".join(sentence for sentence in sentences if sentence)
