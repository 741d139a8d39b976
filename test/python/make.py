"""Writes safetensors files with the Python package, for Ingot to read.

usage: make.py OUT [--seed N] [--numpy] [--metadata KEY=VALUE ...]
       make.py OUT_DIR --shards N [--seed N]

Without --numpy every dtype of the format is written from random raw bytes through
`safetensors.serialize` (numpy has no bf16, F8, F6 or F4); with --numpy, all dtypes numpy has go
through `safetensors.numpy.save_file`. Shapes include 0-dim, empty and multi-dimensional ones.
--shards writes a Hugging Face directory with an index. Prints one JSON line: dtypes written and
those that the installed package refuses.
"""

import argparse
import json
import os

import sys

import numpy
from safetensors import serialize
from safetensors.numpy import save_file

try:
    from safetensors import TensorSpec
except ImportError:  # Before 0.8 `serialize` took dictionaries with the bytes themselves.
    TensorSpec = None

# Name in `serialize`, bits of an element of the shape passed (F4 is passed as pairs).
DTYPES = {
    "bool": 8, "float4_e2m1fn_x2": 8, "float6_e2m3fn": 6, "float6_e3m2fn": 6, "uint8": 8, "int8": 8,
    "float8_e5m2": 8, "float8_e4m3fn": 8, "float8_e8m0fnu": 8, "float8_e4m3fnuz": 8,
    "float8_e5m2fnuz": 8, "int16": 16, "uint16": 16, "float16": 16, "bfloat16": 16, "int32": 32,
    "uint32": 32, "float32": 32, "complex64": 64, "float64": 64, "int64": 64, "uint64": 64,
}
NUMPY_DTYPES = [
    "bool", "uint8", "int8", "int16", "uint16", "float16", "int32", "uint32", "float32", "complex64",
    "float64", "int64", "uint64",
]
SHAPES = [[8], [4, 6], [2, 3, 4], [0], [3, 0, 2], [1, 1, 1, 8]]


def raw_tensors(random, prefix=""):
    """Name to the dictionary that `serialize` takes."""
    tensors = {}
    for dtype, bits in DTYPES.items():
        shapes = SHAPES + ([[]] if bits >= 8 and dtype != "float4_e2m1fn_x2" else [])
        for index, shape in enumerate(shapes):
            size = int(numpy.prod(shape, dtype=numpy.int64)) * bits // 8
            data = random.integers(0, 2 if dtype == "bool" else 256, size, dtype=numpy.uint8).tobytes()
            tensors[f"{prefix}{dtype}.{index}.weight"] = {"dtype": dtype, "shape": shape, "data": data}
    tensors[f"{prefix}名前.é\"\\\n\u0001"] = {"dtype": "float32", "shape": [2], "data": bytes(range(8))}
    return tensors


def to_bytes(tensors, metadata):
    """The file's bytes. From 0.8 on the package takes addresses: `views` keeps the memory alive."""
    if TensorSpec is None:
        return serialize(tensors, metadata)
    views, specs = [], {}
    for name, tensor in tensors.items():
        view = numpy.frombuffer(tensor["data"] or b"\0", dtype=numpy.uint8)
        views.append(view)
        size = len(tensor["data"])
        specs[name] = TensorSpec(
            dtype=tensor["dtype"], shape=tensor["shape"], data_ptr=view.ctypes.data, data_len=size
        )
    return bytes(serialize(specs, metadata))


def usable(tensors):
    """Leaves out the dtypes that this version of the package does not write, with its reasons."""
    refused = {}
    for dtype in DTYPES:
        one = {name: tensor for name, tensor in tensors.items() if tensor["dtype"] == dtype}
        try:
            to_bytes(one, None)
        except Exception as error:  # The package has a class of its own for each version.
            refused[dtype] = str(error)
    if len(refused) == len(DTYPES):
        sys.exit(f"the package writes no dtype at all: {refused}")
    kept = {name: tensor for name, tensor in tensors.items() if tensor["dtype"] not in refused}
    return kept, refused


def write_raw(path, tensors, metadata):
    with open(path, "wb") as file:
        file.write(to_bytes(tensors, metadata))


def write_numpy(path, random, metadata):
    tensors = {}
    for dtype in NUMPY_DTYPES:
        for index, shape in enumerate(SHAPES + [[]]):
            values = numpy.asarray(random.integers(0, 2, shape) if dtype == "bool" else random.normal(0, 50, shape))
            with numpy.errstate(invalid="ignore"):
                tensors[f"{dtype}.{index}"] = values.astype(dtype)
    save_file(tensors, path, metadata)


def write_shards(directory, count, random):
    os.makedirs(directory, exist_ok=True)
    weight_map, total, refused = {}, 0, {}
    for index in range(count):
        name = f"model-{index + 1:05d}-of-{count:05d}.safetensors"
        tensors, refused = usable(raw_tensors(random, f"model.layers.{index}."))
        write_raw(os.path.join(directory, name), tensors, {"format": "pt"})
        weight_map.update({tensor: name for tensor in tensors})
        total += sum(len(tensor["data"]) for tensor in tensors.values())
    with open(os.path.join(directory, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, file, indent=2, sort_keys=True)
    with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as file:
        json.dump({"model_type": "made-up"}, file)
    return refused


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--numpy", action="store_true")
    parser.add_argument("--shards", type=int, default=0)
    parser.add_argument("--metadata", nargs="*", default=[])
    arguments = parser.parse_args()
    random = numpy.random.default_rng(arguments.seed)
    metadata = dict(pair.split("=", 1) for pair in arguments.metadata) or None
    refused = {}
    if arguments.shards > 0:
        refused = write_shards(arguments.out, arguments.shards, random)
    elif arguments.numpy:
        write_numpy(arguments.out, random, metadata)
    else:
        tensors, refused = usable(raw_tensors(random))
        write_raw(arguments.out, tensors, metadata)
    written = NUMPY_DTYPES if arguments.numpy else [name for name in DTYPES if name not in refused]
    print(json.dumps({"dtypes": written, "refused": refused}))


main()
