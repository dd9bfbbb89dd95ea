# SPDX-License-Identifier: MIT
"""What a variant is, what it measured at the end, and the part it plays in the comparison."""

import math


def mean(values):
    return sum(values) / len(values)


def sample_std(values):
    """Standard deviation with n - 1; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    centre = mean(values)
    return math.sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1))


def columns_mean(rows):
    """The mean of several equally long lists, entry by entry."""
    return [mean(column) for column in zip(*rows)]


# ---- what one variant is ----


def title(variant):
    return variant.get("title") or variant["name"]


def is_dense(variant):
    return bool(variant.get("dense")) or len(variant["widths"]) == 1


def is_uniform(variant):
    return max(variant["widths"]) == min(variant["widths"])


def is_heterogeneous(variant):
    return not is_dense(variant) and not is_uniform(variant)


def losses(variant):
    """{name: coefficient} of the auxiliary losses that are switched on."""
    return {
        loss["name"].replace("_", "-"): loss.get("coefficient")
        for loss in variant.get("losses") or []
        if loss.get("coefficient") is None or loss["coefficient"] != 0
    }


def router(variant):
    return (variant.get("router") or "").replace("_", "-")


def final(variant, key):
    """The values of one number at the end of training, one for each run that has it."""
    return [run["final"][key] for run in variant["runs"] if run["final"].get(key) is not None]


def final_mean(variant, key):
    values = final(variant, key)
    return mean(values) if values else None


def final_row(variant, key):
    """A number per layer at the end, mean over the runs, or []."""
    rows = [row for row in final(variant, key) if row]
    return columns_mean(rows) if rows else []


def normalised(row):
    total = sum(row)
    return [value / total for value in row] if total > 0 else list(row)


def shares(variant):
    """Per layer, the part of all activations that each expert gets; mean over runs."""
    runs = [rows for rows in final(variant, "share_per_layer") if rows]
    return [columns_mean([normalised(rows[layer]) for rows in runs]) for layer in range(len(runs[0]))] if runs else []


def layer_mean_share(variant):
    rows = shares(variant)
    return columns_mean(rows) if rows else []


def predicted_share(variant):
    """The share that each expert should get, where the file also predicts the width that follows from it.

    Without that the file's shares are no forecast: no penalty acts, or no expert can be active often enough.
    """
    known = variant.get("predicted_share") and variant.get("predicted_activated_width") is not None
    return normalised(variant["predicted_share"]) if known else None


def width_at_start(variant):
    """The activated width of the untrained model: that of the first step, or, where the first point of a run is the
    mean of many steps and the router is top-k, k times the mean width, which a router without opinions activates."""
    values = []
    for run in variant["runs"]:
        points = [p for p in run.get("history") or [] if p.get("activated_width") is not None]
        if not points:
            continue
        if (points[0].get("step") or 1) > 1 and router(variant) == "top-k" and variant.get("router_value"):
            values.append(variant["router_value"] * mean(variant["widths"]))
        else:
            values.append(points[0]["activated_width"])
    return mean(values) if values else None


# ---- which variant plays which part ----


def named(results, name):
    return next((variant for variant in results["variants"] if variant["name"] == name), None)


def controls_of(results, variant):
    """The homogeneous variants of the same activated width, the closest first.

    `control` names a variant's own control, which several may share; `control_of` says the same from the other side.
    A control that is not in the file (it may still be in training) does not count.
    """
    own = named(results, variant["control"]) if variant.get("control") else None
    others = [v for v in results["variants"] if v.get("control_of") == variant["name"] and v is not own]
    return ([own] if own is not None else []) + others


def baseline(results):
    """The homogeneous layer that everything stands beside."""
    candidates = [v for v in results["variants"] if not is_dense(v) and is_uniform(v) and not v.get("control_of")]
    return next((v for v in candidates if router(v) in ("", "top-k")), candidates[0] if candidates else None)


def main_variant(results):
    """The heterogeneous layer as the paper trains it: with the penalty, top-k first."""
    candidates = [v for v in results["variants"] if is_heterogeneous(v)]
    with_penalty = [v for v in candidates if "parameter-penalty" in losses(v)] or candidates
    return next((v for v in with_penalty if router(v) in ("", "top-k")), with_penalty[0] if with_penalty else None)


def equals_of_router(results, variant):
    """The layers of equal experts with the router of an unequal one and the same total width, whatever their losses."""
    total = sum(variant["widths"])
    return [
        v
        for v in results["variants"]
        if not is_dense(v) and is_uniform(v) and same_router(v, variant) and abs(sum(v["widths"]) / total - 1) <= 0.02
    ]


# Widths are matched to this part, as the controls are.
SAME_WIDTH = 0.02


def best_equal_of_width(results, variant):
    """Of the layers of equal experts that activate no more than this one, with any router, that of the lowest loss."""
    width = final_mean(variant, "activated_width")
    if width is None:
        return None
    candidates = [
        v
        for v in results["variants"]
        if v is not variant
        and not is_dense(v)
        and is_uniform(v)
        and final_mean(v, "activated_width") is not None
        and final_mean(v, "activated_width") <= width * (1 + SAME_WIDTH)
    ]
    return min(candidates, key=lambda v: final_mean(v, "bits_per_byte"), default=None)


def same_router(a, b):
    """With the same shared experts beside it."""
    return router(a) == router(b) and all(a.get(key) == b.get(key) for key in ("router_value", "shared"))


def loss_ablation(results):
    """The main variant's layer under each auxiliary loss."""
    main = main_variant(results)
    if main is None:
        return []
    found = [v for v in results["variants"] if v["widths"] == main["widths"] and same_router(v, main)]
    return found if len(found) > 1 else []


def size_ablation(results):
    """The main variant's router and losses over each choice of widths."""
    main = main_variant(results)
    if main is None:
        return []
    found = [
        v for v in results["variants"] if is_heterogeneous(v) and same_router(v, main) and losses(v) == losses(main)
    ]
    return found if len(found) > 1 else []


def width_pattern(variant):
    """The shape of the widths: "geometric", "arithmetic", "repeated" (as hybrid is), or ""."""
    widths = sorted(variant["widths"])
    if is_uniform(variant) or len(widths) < 3:
        return ""
    if len(set(widths)) < len(widths) - 1:
        return "repeated"
    steps = [b - a for a, b in zip(widths, widths[1:])]
    if max(steps) - min(steps) <= 0.25 * mean(steps):
        return "arithmetic"
    return "geometric" if widths[-1] / widths[0] > 16 else ""
