"""Compares what the `ingot` package loads to a GPU with what it loads to the CPU, and with safetensors on the GPU.

    check_cuda.py STORE REF [FILE]

Every tensor, whole, in slices of random dimensions and by DLPack; tensors used on another stream meanwhile; lifetimes;
FILE is the safetensors file that REF was imported from. Prints one JSON line. Without a GPU: status 77 and a reason.
"""

import gc
import json
import random
import sys

import torch

from ingot import StoreError, load_file, safe_open

counts = {"tensors": 0, "slices": 0, "dlpack": 0, "decoded_on_gpu": 0}


def same(got, expected, name):
    assert got.device.type == "cuda" and got.dtype == expected.dtype and got.shape == expected.shape, name
    assert torch.equal(got.cpu().reshape(-1).view(torch.uint8), expected.cpu().reshape(-1).view(torch.uint8)), name


def check_slices(version, name, whole, generator):
    part = version.get_slice(name)
    for _ in range(8):
        index = tuple(
            slice(*sorted(generator.randrange(0, length + 1) for _ in range(2))) for length in whole.shape
        )
        got = part[index]
        assert got.device.type == "cuda" and got.shape == whole[index].shape, name
        assert torch.equal(got.cpu().view(torch.uint8) if got.numel() else got.cpu(),
                           whole[index].contiguous().view(torch.uint8) if got.numel() else whole[index]), name
        counts["slices"] += 1


def main():
    if not torch.cuda.is_available():
        print("torch sees no GPU")
        sys.exit(77)
    store, ref = sys.argv[1:3]
    generator = random.Random(11)
    side = torch.cuda.Stream()
    with safe_open(store, ref) as here, safe_open(store, ref, device="cuda:0") as there:
        for name in here.keys():
            expected = here.get_tensor(name)
            got = there.get_tensor(name)
            same(got, expected, name)
            counts["tensors"] += 1
            # On a stream of the caller's: its memory may still be in use there when the read begins.
            with torch.cuda.stream(side):
                busy = torch.full_like(expected, 1, device="cuda:0")
                for _ in range(4):
                    busy = busy + busy
                del busy
                same(there.get_tensor(name), expected, name)
            if expected.dim() > 0 and expected.element_size() > 1:
                check_slices(there, name, expected, generator)
            taken = torch.from_dlpack(there.get_dlpack(name))
            same(taken, expected, name)
            untaken = there.get_dlpack(name)
            del untaken
            counts["dlpack"] += 1
        counts["decoded_on_gpu"] = there.decoded_on_gpu
        name = max(here.keys(), key=lambda each: here.get_tensor(each).numel())
        kept, expected = torch.from_dlpack(there.get_dlpack(name)), here.get_tensor(name)
    gc.collect()
    same(kept, expected, "a tensor that outlives its version")
    loaded = load_file(store, ref, device="cuda")
    if len(sys.argv) > 3:
        from safetensors.torch import load_file as load_safetensors

        for name, expected in load_safetensors(sys.argv[3], device="cuda:0").items():
            same(loaded[name], expected, name)
    try:
        with safe_open(store, ref, device="cuda:99") as nowhere:
            nowhere.get_dlpack(name)
        raise AssertionError("cuda:99")
    except StoreError as error:
        assert error.code == "E_NOT_FOUND", error
    print(json.dumps({**counts, "loaded": len(loaded)}))


main()
