#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads and writes layers whose experts differ in size and kind, as docs/checkpoints.md describes them: every tensor of
an expert is a matrix of its own in a safetensors file, and a manifest in the metadata says what the experts are.
Needs numpy and safetensors.

usage: ragged_checkpoint.py FILE             what is in a file
       ragged_checkpoint.py FILE COPY        reads FILE and writes the same as COPY

A layer is a dictionary: prefix, d_model, reason {what, by, from}, experts, tensors. An expert is one, too: kind, width,
format, tensors. Tensors are dictionaries from names to numpy arrays of two dimensions.
"""

import json
import sys

import numpy
from safetensors import safe_open
from safetensors.numpy import save_file

KEY, VERSION = "ragged_experts", 1


def check(condition, message):
    if not condition:
        raise ValueError(message)


def read(path):
    """The layers of a file, in its order."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        check(KEY in metadata, f"{path} has no metadata under {KEY}")
        manifest = json.loads(metadata[KEY])
        check(manifest["version"] == VERSION, f"{path}: version {manifest['version']}, known is {VERSION}")
        left = set(file.keys())

        def take(prefix, names):
            tensors = {}
            for name in names:
                check(prefix + name in left, f"{path}: the tensor {prefix + name} is missing, or comes twice")
                left.remove(prefix + name)
                tensors[name] = file.get_tensor(prefix + name)
                check(tensors[name].ndim == 2, f"{path}: {prefix + name} is no matrix")
            return tensors

        layers = []
        for layer in manifest["layers"]:
            prefix, experts = layer["prefix"], []
            for place, expert in enumerate(layer["experts"]):
                check(expert["id"] == place, f"{path}: expert {place} of {prefix!r} has the id {expert['id']}")
                tensors = take(f"{prefix}experts.{place}.", expert["tensors"])
                experts.append({**expert, "tensors": tensors})
            layers.append({**layer, "experts": experts, "tensors": take(prefix, layer["tensors"])})
        for layer in layers:
            extra = sorted(name for name in left if name.startswith(layer["prefix"] + "experts."))
            check(not extra, f"{path}: not in the manifest: {', '.join(extra)}")
        return layers


FORMATS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
           "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}  # fmt: skip


def write(path, layers):
    """Writes layers as read() returns them; ids and formats are found by themselves, tensors without values left out."""
    tensors, described = {}, []

    def put(prefix, values):
        kept = {name: numpy.ascontiguousarray(value) for name, value in values.items() if value.size}
        for name, value in kept.items():
            check(value.ndim == 2 and prefix + name not in tensors, f"{prefix + name} is no matrix, or comes twice")
            tensors[prefix + name] = value
        return list(kept)

    for layer in layers:
        experts = []
        for place, expert in enumerate(layer["experts"]):
            names = put(f"{layer['prefix']}experts.{place}.", expert["tensors"])
            formats = {FORMATS[expert["tensors"][name].dtype.name] for name in names}
            check(len(formats) <= 1, f"expert {place} mixes formats: {', '.join(sorted(formats))}")
            experts.append({"id": place, "kind": expert["kind"], "width": expert["width"],
                            "format": "".join(formats), "tensors": names})  # fmt: skip
        reason = {"what": "trained", "by": "", "from": "", **layer.get("reason", {})}
        described.append({"prefix": layer["prefix"], "d_model": layer["d_model"], "reason": reason, "experts": experts,
                          "tensors": put(layer["prefix"], layer["tensors"])})  # fmt: skip
    manifest = {"version": VERSION, "layers": described}
    text = json.dumps(manifest, separators=(",", ":"), ensure_ascii=False)
    save_file(tensors, path, metadata={KEY: text})


def main(arguments):
    if len(arguments) not in (1, 2):
        sys.exit(__doc__)
    layers = read(arguments[0])
    if len(arguments) == 2:
        write(arguments[1], layers)
    for layer in layers:
        print(f"layer {layer['prefix']!r}: d_model {layer['d_model']}, {' '.join(layer['reason'].values())}")
        for place, expert in enumerate(layer["experts"]):
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in expert["tensors"].items())
            print(f"  expert {place}: {expert['kind']}, width {expert['width']} {expert['format']} {shapes}")
        print("  " + ", ".join(f"{name} {list(value.shape)}" for name, value in layer["tensors"].items()))


if __name__ == "__main__":
    main(sys.argv[1:])
