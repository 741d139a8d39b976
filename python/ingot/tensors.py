"""Memory for tensors: numpy arrays, torch tensors, and DLPack capsules, each owner of its bytes.

  1. `empty` gives memory that nothing else refers to and its address; the reader fills it before anyone sees it.
  2. numpy has no bf16 and no float8: such tensors come as ml_dtypes arrays where that package is there, else they
     are refused with a sentence (E_UNSUPPORTED), never reinterpreted silently.
  3. Sub-byte types (F4, F6) have no type in either framework here; they are read as bytes by get_bytes.
"""

import ctypes

from .library import CPU, StoreError

_NUMPY = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "F16": "float16", "I32": "int32",
    "U32": "uint32", "F32": "float32", "C64": "complex64", "F64": "float64", "I64": "int64", "U64": "uint64",
}
_ML_DTYPES = {
    "BF16": "bfloat16", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
_TORCH = {
    **_NUMPY, **_ML_DTYPES,
}


def numpy_dtype(name):
    import numpy

    if name in _NUMPY:
        return numpy.dtype(_NUMPY[name])
    if name in _ML_DTYPES:
        try:
            import ml_dtypes

            return numpy.dtype(getattr(ml_dtypes, _ML_DTYPES[name]))
        except (ImportError, AttributeError):
            pass
    raise StoreError(
        "E_UNSUPPORTED", f"numpy has no type for {name}; use framework='pt', install ml_dtypes, or take get_bytes"
    )


def torch_dtype(name):
    import torch

    found = getattr(torch, _TORCH.get(name, ""), None)
    if found is None:
        raise StoreError("E_UNSUPPORTED", f"this torch has no type for {name}; take get_bytes")
    return found


ALIGNMENT = 4096
"""Addresses at multiples of it are read into directly."""


def empty_numpy(shape, dtype_name):
    """(array, address): the array owns its memory, page-aligned where it is large."""
    import numpy

    dtype = numpy_dtype(dtype_name)
    count = 1
    for length in shape:
        count *= length
    size = count * dtype.itemsize
    if size < ALIGNMENT:
        array = numpy.empty(shape, dtype)
        return array, array.ctypes.data
    memory = numpy.empty(size + ALIGNMENT, numpy.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    array = memory[start : start + size].view(dtype).reshape(shape)
    return array, array.ctypes.data


def empty_torch(shape, dtype_name, device="cpu"):
    import torch

    tensor = torch.empty(tuple(shape), dtype=torch_dtype(dtype_name), device=device)
    return tensor, tensor.data_ptr()


def cuda_stream(number):
    """The stream that torch queues work for this GPU on: memory from its allocator may still be in use there."""
    import torch

    return torch.cuda.current_stream(number).cuda_stream or None


EMPTY = {"numpy": empty_numpy, "np": empty_numpy, "pt": empty_torch, "torch": empty_torch}


def framework_of(name, kind=CPU, number=0):
    """The function that gives (tensor, address) of a shape and a dtype's name, on that device."""
    if name not in EMPTY:
        raise ValueError(f"framework is 'pt' or 'numpy', not {name!r}")
    make = EMPTY[name]
    if kind == CPU:
        return make
    if make is empty_numpy:
        raise ValueError("numpy arrays are on the CPU; use framework='pt' for a GPU")
    return lambda shape, dtype_name: empty_torch(shape, dtype_name, f"cuda:{number}")


# ---- DLPack ------------------------------------------------------------------------------------------------

_NAME, _USED = b"dltensor_versioned", b"used_dltensor_versioned"
_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    """The head of DLManagedTensorVersioned, which stays as it is in every version (dlpack.h)."""

    _fields_ = [
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p), ("deleter", _Deleter),
    ]


_python = ctypes.pythonapi
_python.PyCapsule_New.restype = ctypes.py_object
_python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_python.PyCapsule_IsValid.argtypes = [ctypes.py_object, ctypes.c_char_p]
_python.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]


def _delete(address):
    if address:
        ctypes.cast(address, ctypes.POINTER(_Managed)).contents.deleter(address)


class DLPackTensor:
    """A tensor for `torch.from_dlpack`, `numpy.from_dlpack` and others. It can be taken once; untaken, it frees itself.

    The capsule has no destructor of its own: this object keeps it and, when nobody took it, deletes the tensor.
    """

    def __init__(self, address, device=(CPU, 0)):
        self._address, self._capsule, self._device = address, None, device

    def __dlpack_device__(self):
        return self._device

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        if max_version is None or max_version[0] < 1:
            raise BufferError("this tensor is handed over as DLPack 1.x; the consumer asks for an older one")
        # The bytes were in place when it was made: no stream of the consumer's has to wait.
        if dl_device is not None and tuple(dl_device) != self._device:
            raise BufferError("the tensor is on another device (__dlpack_device__), and is not copied here")
        if self._address is None or self._capsule is not None:
            raise BufferError("the tensor was handed over already")
        capsule = _python.PyCapsule_New(self._address, _NAME, None)
        self._capsule = capsule
        return capsule

    def __del__(self):
        address, self._address = getattr(self, "_address", None), None
        if address is None:
            return
        # A consumer renames the capsule when it takes the tensor, and frees it itself.
        if self._capsule is not None:
            if not _python.PyCapsule_IsValid(self._capsule, _NAME):
                return
            _python.PyCapsule_SetName(self._capsule, _USED)
        _delete(address)
