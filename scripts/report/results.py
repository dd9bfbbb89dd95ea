# SPDX-License-Identifier: MIT
"""Reads results.json, the file that `language_model compare` writes.

The reader is strict about what it uses and silent about what it does not know:
a missing or malformed field is an error that names the field's place, an
optional part may be absent or null, and additional fields are ignored.
"""

import json
import math

FORMAT = "hmoe-results-1"


class ResultsError(Exception):
    """The file is not what this report can show; the text says why."""


def number(value, where):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ResultsError(f"{where}: expected a number, found {shown(value)}")


def text(value, where):
    if not isinstance(value, str):
        raise ResultsError(f"{where}: expected a text, found {shown(value)}")


def flag(value, where):
    if not isinstance(value, bool):
        raise ResultsError(f"{where}: expected true or false, found {shown(value)}")


def list_of(check, minimum=0):
    def checked(value, where):
        if not isinstance(value, list):
            raise ResultsError(f"{where}: expected a list, found {shown(value)}")
        if len(value) < minimum:
            raise ResultsError(f"{where}: expected at least {minimum} entries, found {len(value)}")
        for index, entry in enumerate(value):
            check(entry, f"{where}[{index}]")

    return checked


def record(required, optional=None):
    def checked(value, where):
        if not isinstance(value, dict):
            raise ResultsError(f"{where}: expected an object, found {shown(value)}")
        for name, check in required.items():
            if name not in value:
                raise ResultsError(f'{where}: the field "{name}" is missing')
            check(value[name], f"{where}.{name}")
        for name, check in (optional or {}).items():
            if value.get(name) is not None:
                check(value[name], f"{where}.{name}")

    return checked


def shown(value):
    written = json.dumps(value)
    return written if len(written) <= 40 else written[:37] + "..."


numbers = list_of(number)
number_rows = list_of(numbers)

HISTORY_POINT = record(
    {"flops": number},
    {
        "step": number,
        "tokens": number,
        "train_loss": number,
        "bits_per_byte": number,
        "activated_width": number,
        "activated_parameters": number,
        "activated_width_per_layer": numbers,
        "share_per_layer": number_rows,
    },
)

FINAL = record(
    {"bits_per_byte": number, "flops_per_token": number},
    {
        "nats_per_token": number,
        "activated_parameters": number,
        "activated_width": number,
        "activated_width_per_layer": numbers,
        "activated_experts_per_layer": numbers,
        "tokens_per_second": number,
        "seconds": number,
        "tokens": number,
        "steps": number,
        "share_per_layer": number_rows,
    },
)

DIFFICULTY = record(
    {"bins": list_of(record({"from": number, "to": number, "tokens": number, "mean_width_per_layer": numbers}))},
    {"correlation_per_layer": numbers},
)

TOP_TOKEN = record({"token": text}, {"count": number, "lift": number})

RUN = record(
    {"final": FINAL},
    {
        "seed": number,
        "history": list_of(HISTORY_POINT),
        "difficulty": DIFFICULTY,
        "top_tokens": list_of(list_of(list_of(TOP_TOKEN))),
        "distance": list_of(number_rows),
        "synergy": list_of(number_rows),
        "sample": text,
    },
)

VARIANT = record(
    {"name": text, "widths": list_of(number, minimum=1), "runs": list_of(RUN, minimum=1)},
    {
        "title": text,
        "control_of": text,
        "control": text,
        "dense": flag,
        "router": text,
        "router_value": number,
        "shared": record({"kind": text, "widths": list_of(number, minimum=1)}),
        "losses": list_of(record({"name": text}, {"coefficient": number})),
        "predicted_share": numbers,
        "predicted_activated_width": number,
    },
)

RESULTS = record(
    {
        "machine": record({"cpu": text}, {"threads": number, "compiler": text, "flags": text}),
        "budget_flops": number,
        "variants": list_of(VARIANT, minimum=1),
    },
    {
        "command": text,
        "corpus": record(
            {},
            {
                "name": text,
                "train_bytes": number,
                "heldout_bytes": number,
                "train_tokens": number,
                "eval_tokens": number,
                "bytes_per_token": number,
                "vocabulary": number,
            },
        ),
        "model": record(
            {},
            {
                "d_model": number,
                "blocks": number,
                "heads": number,
                "context": number,
                "batch": number,
                "parameters_without_experts": number,
            },
        ),
    },
)


def check(results):
    """Raises ResultsError if this is not a file of the format above."""
    if not isinstance(results, dict) or "format" not in results:
        raise ResultsError(f"this is not a results file: it does not name its format, which should be {FORMAT}")
    if results["format"] != FORMAT:
        raise ResultsError(f"the file has the format {shown(results['format'])}; this report reads {FORMAT} only")
    RESULTS(results, "results")
    names = [variant["name"] for variant in results["variants"]]
    for variant in results["variants"]:
        where = f"variant {shown(variant['name'])}"
        if names.count(variant["name"]) > 1:
            raise ResultsError(f"{where}: the name stands more than once")
        if min(variant["widths"]) <= 0:
            raise ResultsError(f"{where}: a width is not positive")
        experts = len(variant["widths"])
        if variant.get("predicted_share") is not None and len(variant["predicted_share"]) != experts:
            raise ResultsError(f"{where}: {len(variant['predicted_share'])} predicted shares for {experts} experts")
        for run in variant["runs"]:
            for rows in [run["final"], *(run.get("history") or [])]:
                for row in rows.get("share_per_layer") or []:
                    if len(row) != experts:
                        raise ResultsError(f"{where}: a layer gives {len(row)} shares for {experts} experts")
    return results


def refuse_constant(name):
    raise ResultsError(f"the file holds {name}, which JSON does not allow: did a run diverge?")


def load(path):
    return check(parse(path))


def parse(path):
    """The file's JSON, whatever it holds."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file, parse_constant=refuse_constant)
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path} is not UTF-8 text: {error}") from None
    except json.JSONDecodeError as error:
        raise ResultsError(f"{path} is not JSON, or was cut off: {error}") from None
