"""Loads two safetensors files, or directories of them, with the Python package and compares them.

usage: compare.py LEFT RIGHT [--bytes]

Every tensor must be on both sides with the same dtype, shape and bytes; how tensors are spread over
files does not matter. --bytes also compares every file of both directories byte for byte. Prints
one JSON line ({"tensors": N, "bytes": N}) and exits 0 when equal; else prints each difference on
stderr and exits 1. One file of each side is in memory at a time.
"""

import argparse
import filecmp
import hashlib
import json
import os
import sys

from safetensors import deserialize


def files_of(path):
    if os.path.isfile(path):
        return [path]
    names = sorted(name for name in os.listdir(path) if name.endswith(".safetensors"))
    return [os.path.join(path, name) for name in names]


def digest(path):
    """Tensor name to dtype, shape, size and SHA-256, as the package itself reads the file."""
    tensors = {}
    for file in files_of(path):
        with open(file, "rb") as handle:
            content = handle.read()
        for name, tensor in deserialize(content):
            if name in tensors:
                sys.exit(f"{path}: {name} is in two files")
            data = tensor["data"]
            tensors[name] = (tensor["dtype"], list(tensor["shape"]), len(data), hashlib.sha256(data).hexdigest())
    return tensors


def all_names(path):
    found = []
    for directory, _, names in os.walk(path):
        found += [os.path.relpath(os.path.join(directory, name), path) for name in names]
    return sorted(found)


def compare_bytes(left, right):
    if os.path.isfile(left):
        return [] if filecmp.cmp(left, right, shallow=False) else [f"{left} and {right} differ"]
    if all_names(left) != all_names(right):
        return [f"different files: {sorted(set(all_names(left)) ^ set(all_names(right)))}"]
    pairs = [(os.path.join(left, name), os.path.join(right, name)) for name in all_names(left)]
    return [f"{a} and {b} differ" for a, b in pairs if not filecmp.cmp(a, b, shallow=False)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("left")
    parser.add_argument("right")
    parser.add_argument("--bytes", action="store_true")
    arguments = parser.parse_args()
    left, right = digest(arguments.left), digest(arguments.right)
    problems = [f"only in {arguments.left}: {name!r}" for name in left if name not in right]
    problems += [f"only in {arguments.right}: {name!r}" for name in right if name not in left]
    problems += [
        f"{name!r}: {left[name][:3]} and {right[name][:3]} differ"
        for name in left
        if name in right and left[name] != right[name]
    ]
    if arguments.bytes:
        problems += compare_bytes(arguments.left, arguments.right)
    if problems:
        sys.exit("\n".join(problems[:50]))
    print(json.dumps({"tensors": len(left), "bytes": sum(entry[2] for entry in left.values())}))


main()
