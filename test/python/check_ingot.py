"""Compares the `ingot` package with the `safetensors` package on the same files.

    check_ingot.py STORE REF FILE [--torch]

Every tensor of FILE (a safetensors file that REF was imported from) is read by both, whole and in slices of random
dimensions, and compared bit for bit; then lifetimes, DLPack, files, errors. Prints one JSON line with the counts.
"""

import gc
import json
import random
import sys

import numpy
from safetensors import safe_open as open_file

from ingot import Store, StoreError, load, open_store, safe_open
from ingot import slices

counts = {"tensors": 0, "slices": 0, "unsupported": 0, "dlpack": 0}


def bits(tensor):
    """The bytes of a numpy or torch tensor, row-major."""
    if hasattr(tensor, "contiguous"):
        import torch

        # A copy with strides of its own: `contiguous` keeps odd ones of dimensions of length 1.
        plain = torch.empty(tensor.numel(), dtype=tensor.dtype)
        plain.copy_(tensor.reshape(-1))
        return bytes(plain.view(torch.uint8).numpy()) if tensor.numel() else b""
    return numpy.ascontiguousarray(tensor).tobytes()


def expect_error(code, action):
    try:
        action()
    except StoreError as error:
        assert error.code == code, f"{error.code}, not {code}"
        return error
    raise AssertionError(f"no {code}")


def random_index(generator, shape, steps):
    index = []
    for length in shape:
        kind = generator.randrange(4)
        if kind == 0 and length > 0:
            index.append(generator.randrange(-length, length))
        elif kind == 1:
            index.append(slice(None))
        else:
            a, b = sorted(generator.randrange(-1, length + 2) for _ in range(2))
            step = generator.choice([1, 2, 3, -1, -2]) if steps else generator.choice([1, 1, 2])
            index.append(slice(a, b, step) if step > 0 else slice(b, a, step))
    cut = generator.randrange(len(index) + 1)
    if generator.randrange(3) == 0:
        return (*index[:cut], Ellipsis)
    return tuple(index[:cut]) if cut or not shape else tuple(index)


def compare_slices(version, name, whole, generator, steps):
    part = version.get_slice(name)
    assert part.get_shape() == list(whole.shape)
    for _ in range(12):
        index = random_index(generator, whole.shape, steps)
        expected, got = whole[index], part[index]
        assert tuple(got.shape) == tuple(expected.shape), f"{name}{index}: {got.shape}, not {expected.shape}"
        assert bits(got) == bits(expected), f"{name}{index}"
        counts["slices"] += 1


def stored_bytes(path):
    """Name to the bytes of each tensor of a safetensors file, whatever its dtype."""
    with open(path, "rb") as file:
        data = file.read()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    return {
        name: data[start + tensor["data_offsets"][0] : start + tensor["data_offsets"][1]]
        for name, tensor in header.items()
        if name != "__metadata__"
    }


def compare(store, ref, path, framework):
    generator = random.Random(7)
    raw = stored_bytes(path)
    with safe_open(store, ref, framework=framework) as version:
        with open_file(path, framework="pt" if framework == "pt" else "numpy") as file:
            assert version.keys() == sorted(file.keys())
            for name in file.keys():
                try:
                    expected = file.get_tensor(name)
                except Exception:
                    # The other package has no type for it in this framework; ours says so, and gives the bytes.
                    assert bytes(version.get_bytes(name)) == raw[name], name
                    counts["unsupported"] += 1
                    continue
                if file.get_slice(name).get_dtype() == "F4":
                    # Pairs of nibbles are one element to torch and two to us: ours are bytes only.
                    expect_error("E_UNSUPPORTED", lambda: version.get_tensor(name))
                    assert bytes(version.get_bytes(name)) == raw[name], name
                    counts["unsupported"] += 1
                    continue
                got = version.get_tensor(name)
                assert str(got.dtype) == str(expected.dtype) and tuple(got.shape) == tuple(expected.shape), name
                assert bits(got) == bits(expected), name
                counts["tensors"] += 1
                compare_slices(version, name, expected, generator, framework == "numpy")
        return version


def check_lifetimes(store, ref, path):
    with open_file(path, framework="numpy") as file:
        name = max((n for n in file.keys() if n.startswith("float32")), key=lambda n: file.get_tensor(n).size)
        expected = file.get_tensor(name)
    version = safe_open(store, ref, framework="numpy")
    tensor, capsule = version.get_tensor(name), version.get_dlpack(name)
    untaken, twice = version.get_dlpack(name), version.get_dlpack(name)
    version.close()
    del version, untaken
    gc.collect()
    assert tensor.flags.owndata or tensor.base is not None
    tensor[...] = tensor  # It is ours to write.
    assert bits(tensor) == bits(expected)
    shared = numpy.from_dlpack(capsule)
    del capsule
    gc.collect()
    assert bits(shared) == bits(expected)
    numpy.from_dlpack(twice)
    try:
        numpy.from_dlpack(twice)
        raise AssertionError("handed over twice")
    except BufferError:
        pass
    counts["dlpack"] += 2


def check_torch(store, ref, path):
    import torch

    with open_file(path, framework="pt") as file, safe_open(store, ref) as version:
        for name in file.keys():
            if file.get_slice(name).get_dtype() != "BF16":
                continue
            taken = torch.from_dlpack(version.get_dlpack(name))
            assert taken.dtype == torch.bfloat16 and bits(taken) == bits(file.get_tensor(name))
            counts["dlpack"] += 1


def check_errors(store, ref):
    expect_error("E_NOT_FOUND", lambda: safe_open(store, "no/such@run"))
    expect_error("E_USAGE", lambda: safe_open(store, "a//b"))
    expect_error("E_NOT_FOUND", lambda: Store("/nonexistent/x.member"))
    version = safe_open(store, ref, framework="numpy")
    assert expect_error("E_NOT_FOUND", lambda: version.get_tensor("no such")).object == "no such"
    version.close()
    expect_error("E_CLOSED", lambda: version.keys())
    try:
        safe_open(store, ref, framework="numpy", device="cuda:0")
        raise AssertionError("numpy on a GPU")
    except ValueError as error:
        assert "framework='pt'" in str(error)


def check_looking(store, ref, path):
    with open_store(store) as opened:
        assert opened.info["members"] == opened.info["members_found"] and not opened.info["degraded"]
        runs = opened.runs()
        assert ref.partition("@")[0] in runs and runs == sorted(runs)
        run = ref.partition("@")[0]
        versions = opened.versions(run)
        assert opened.tags(run)["latest"] == versions[-1]["id"]
    with safe_open(store, ref, framework="numpy") as version, open(path, "rb") as file:
        name = next(iter(version.files()))
        assert version.get_file(name) == file.read()
        assert version.metadata()["import.format"] == "safetensors"


def check_blocks(store, ref):
    """Both ways of cutting give the same: limits made small, so that small tensors take each."""
    far, block = slices.FAR_BYTES, slices.BLOCK_BYTES
    with safe_open(store, ref, framework="numpy") as version:
        name = next(n for n in version.keys() if len(version.get_slice(n).get_shape()) == 3 and n.startswith("float64"))
        whole = version.get_tensor(name)
        for slices.FAR_BYTES, slices.BLOCK_BYTES in ((0, 1), (1 << 40, 1), (1 << 40, 1 << 30)):
            compare_slices(version, name, whole, random.Random(3), True)
    slices.FAR_BYTES, slices.BLOCK_BYTES = far, block


def loaded_bytes(store, ref, framework):
    """`load` of all tensors; where the framework lacks a type it says so, and nothing is handed out."""
    try:
        return load(store, ref, framework=framework)
    except StoreError as error:
        assert error.code == "E_UNSUPPORTED", error
        return {}


def main():
    store, ref, path = sys.argv[1:4]
    framework = "pt" if "--torch" in sys.argv else "numpy"
    compare(store, ref, path, framework)
    check_looking(store, ref, path)
    check_errors(store, ref)
    if framework == "pt":
        check_torch(store, ref, path)
        loaded = loaded_bytes(store, ref, framework)
    else:
        check_lifetimes(store, ref, path)
        check_blocks(store, ref)
        loaded = loaded_bytes(store, ref, framework)
    counts["loaded"] = len(loaded)
    print(json.dumps(counts))


main()
