"""One measurement of a Python peer of `bench peers`: saves or loads the model and prints seconds as JSON.

Every line of input is one order: {"peer", "what", "source", "target"}. The interpreter and its packages are loaded,
and memory is touched, before anything is timed.

Invariants
  1. A save ends when the file's bytes are on the disk (fsync of the file and its directory).
  2. A load ends when every byte is in memory of its own (copied out of a mapping, where the loader maps), because
     that is what the store's load gives.
  3. Files are read whole from what `save` wrote; the caller has dropped them from the page cache, or not.
"""

import json
import os
import sys
import time

import torch
from safetensors.torch import load_file, save_file

torch.set_num_threads(max(1, os.cpu_count() or 1))


def sync(path):
    for name, flags in ((path, os.O_RDONLY), (os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)):
        descriptor = os.open(name, flags)
        os.fsync(descriptor)
        os.close(descriptor)


def source_tensors(directory):
    tensors = {}
    for name in sorted(os.listdir(directory)):
        if name.endswith(".safetensors"):
            tensors.update(load_file(os.path.join(directory, name)))
    return {name: tensor.clone() for name, tensor in tensors.items()}


def copy_into(tensors, room):
    for name, tensor in tensors.items():
        room[name].copy_(tensor)


def perform(order, tensors, room):
    path = order["target"]
    start = time.perf_counter()
    if order["peer"] == "safetensors":
        if order["what"] == "save":
            save_file(tensors, path)
            sync(path)
        else:
            copy_into(load_file(path), room)
    elif order["what"] == "save":
        torch.save(tensors, path)
        sync(path)
    else:
        # Into new memory, as torch.load does; what it returns is already a copy.
        torch.load(path, weights_only=True)
    return time.perf_counter() - start


def main():
    directory = sys.argv[1]
    tensors = source_tensors(directory)
    room = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    print(json.dumps({"bytes": total, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps({"seconds": perform(order, tensors, room)}), flush=True)


main()
