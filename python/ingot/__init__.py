"""Reads tensors from Ingot stores; every byte is verified before it is handed out.

    from ingot import safe_open, load

    with safe_open("./demo.ingot", "run@latest", framework="numpy") as version:
        for name in version.keys():
            tensor = version.get_tensor(name)
        part = version.get_slice("lm_head.weight")[:, 1024:2048]
    tensors = load("./demo.ingot", "run@latest", framework="pt")
    on_gpu = load_file("./demo.ingot", "run@latest", device="cuda")

The names follow the `safetensors` package, so that a loader changes in one line. Errors are `StoreError` with a
`code` of docs/errors.md ("E_CORRUPT"). Tensors own their memory: they outlive the version and the store.
"""

from .library import StoreError
from .store import Store, Version, load, load_file, open_store, safe_open

__all__ = ["Store", "StoreError", "Version", "load", "load_file", "open_store", "safe_open"]
__version__ = "0.1.0"
