"""libingot.so through ctypes: the structures and functions of native/include/ingot.h, and its errors as exceptions.

  1. Structures mirror the header field by field; `size` is set when one is made.
  2. Every function that returns a code goes through `check`, so no failure is dropped.

The library is the one beside this file (in a wheel), else $INGOT_LIBRARY, else the checkout's build.
"""

import ctypes
import os
from ctypes import POINTER, byref, c_char_p, c_double, c_int32, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p

TENSOR, BLOB, FILE = 0, 1, 2
CPU, CUDA = 1, 2
NO_OFFSET = (1 << 64) - 1


class StoreError(Exception):
    """`code` ("E_CORRUPT"), and where: `object`, `member`, `member_index`, `offset_bytes`, `errno` (None unknown)."""

    def __init__(self, code, message, object=None, member=None, member_index=None, offset_bytes=None, errno=None):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message
        self.object, self.member, self.member_index = object, member, member_index
        self.offset_bytes, self.errno = offset_bytes, errno


class Sized(ctypes.Structure):
    def __init__(self, **fields):
        super().__init__(size=ctypes.sizeof(type(self)), **fields)


class ErrorInfo(Sized):
    _fields_ = [
        ("size", c_size_t), ("code", c_int32), ("errno_value", c_int32), ("name", c_char_p), ("message", c_char_p),
        ("object", c_char_p), ("member", c_char_p), ("member_index", c_int32), ("offset_bytes", c_uint64),
    ]


class MemberImage(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("size_bytes", c_uint64)]


class OpenOptions(Sized):
    _fields_ = [
        ("size", c_size_t), ("paths", POINTER(c_char_p)), ("path_count", c_size_t), ("images", POINTER(MemberImage)),
        ("image_count", c_size_t), ("backend", c_int32), ("reserved0", c_uint32), ("page_cache_bytes", c_uint64),
        ("catalog_value_bytes_max", c_uint64),
    ]


class StoreInfo(Sized):
    _fields_ = [
        ("size", c_size_t), ("uuid", c_uint8 * 16), ("sequence", c_uint64), ("root_sum", c_uint64),
        ("committed_at_ms", c_uint64), ("version_count", c_uint64), ("member_count", c_uint32),
        ("members_found", c_uint32), ("degraded", c_uint32), ("may_be_behind", c_uint32), ("note_count", c_uint32),
        ("path", c_uint32),
    ]


class RunInfo(Sized):
    _fields_ = [
        ("size", c_size_t), ("name", c_char_p), ("version_count", c_uint64), ("last_version_id", c_uint64),
        ("created_at_ms", c_uint64),
    ]


class TagInfo(Sized):
    _fields_ = [
        ("size", c_size_t), ("name", c_char_p), ("version_id", c_uint64), ("generation", c_uint64),
        ("moved_at_ms", c_uint64),
    ]


class VersionInfo(Sized):
    _fields_ = [
        ("size", c_size_t), ("id", c_uint64), ("run", c_char_p), ("has_step", c_uint32), ("redundancy", c_uint32),
        ("step", c_uint64), ("created_at_ms", c_uint64), ("tensor_count", c_uint64), ("blob_count", c_uint64),
        ("file_count", c_uint64), ("raw_bytes", c_uint64), ("stored_bytes", c_uint64), ("metadata_count", c_uint64),
        ("metric_count", c_uint64),
    ]


class TensorInfo(Sized):
    _fields_ = [
        ("size", c_size_t), ("name", c_char_p), ("dtype", c_char_p), ("dtype_code", c_uint32),
        ("dtype_bits", c_uint32), ("rank", c_uint32), ("file_index", c_int32), ("shape", POINTER(c_uint64)),
        ("raw_bytes", c_uint64), ("raw_sum", c_uint64), ("file_offset_bytes", c_uint64),
    ]


class BlobInfo(Sized):
    _fields_ = [
        ("size", c_size_t), ("name", c_char_p), ("content_type", c_char_p), ("raw_bytes", c_uint64),
        ("raw_sum", c_uint64), ("file_index", c_int32), ("reserved0", c_uint32),
    ]


class FileInfo(Sized):
    _fields_ = [
        ("size", c_size_t), ("name", c_char_p), ("size_bytes", c_uint64), ("sum", c_uint64), ("format", c_uint32),
        ("mode", c_uint32), ("prefix", c_void_p), ("prefix_bytes", c_uint64),
    ]


class ReadRequest(Sized):
    _fields_ = [
        ("size", c_size_t), ("kind", c_uint32), ("reserved0", c_uint32), ("index", c_uint64),
        ("offset_bytes", c_uint64), ("length_bytes", c_uint64), ("destination", c_void_p),
    ]


class ReadOptions(Sized):
    _fields_ = [("size", c_size_t), ("device_type", c_int32), ("device_id", c_int32), ("stream", c_void_p)]


class ReadReport(Sized):
    _fields_ = [
        ("size", c_size_t), ("bytes_by_path", c_uint64 * 4), ("faults", c_uint64),
        ("requests_verified_whole", c_uint64), ("gpu_bytes", c_uint64), ("gpu_decoded_bytes", c_uint64),
        ("gpu_suspects", c_uint64),
    ]


def _path():
    here = os.path.dirname(os.path.abspath(__file__))
    checkout = os.path.join(here, "..", "..", "build")
    given = os.environ.get("INGOT_LIBRARY")
    places = [given] if given else []
    places.append(os.path.join(here, "libingot.so"))
    places += [os.path.join(checkout, folder, "libingot.so") for folder in ("Release", "core")]
    for place in places:
        if os.path.exists(place):
            return place
    raise ImportError(f"libingot.so is at none of {places}: build the project, or set INGOT_LIBRARY")


_FUNCTIONS = {
    # name: (result, arguments); None: a code that `check` turns into an exception
    "ingot_reader_abi_version": (c_uint32, []),
    "ingot_error_last": (POINTER(ErrorInfo), []),
    "ingot_store_open": (None, [POINTER(OpenOptions), POINTER(c_void_p)]),
    "ingot_store_refresh": (None, [c_void_p]),
    "ingot_store_close": (c_int32, [c_void_p]),
    "ingot_store_info_get": (None, [c_void_p, POINTER(StoreInfo)]),
    "ingot_store_note": (c_char_p, [c_void_p, c_uint32]),
    "ingot_runs_list": (None, [c_void_p, c_char_p, c_uint32, POINTER(c_void_p)]),
    "ingot_tags_list": (None, [c_void_p, c_char_p, c_char_p, c_uint32, POINTER(c_void_p)]),
    "ingot_versions_list": (None, [c_void_p, c_char_p, c_uint64, c_uint32, POINTER(c_void_p)]),
    "ingot_list_count": (c_size_t, [c_void_p]),
    "ingot_list_run": (None, [c_void_p, c_size_t, POINTER(RunInfo)]),
    "ingot_list_tag": (None, [c_void_p, c_size_t, POINTER(TagInfo)]),
    "ingot_list_version": (None, [c_void_p, c_size_t, POINTER(VersionInfo)]),
    "ingot_list_free": (c_int32, [c_void_p]),
    "ingot_version_open": (None, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "ingot_version_close": (c_int32, [c_void_p]),
    "ingot_version_info_get": (None, [c_void_p, POINTER(VersionInfo)]),
    "ingot_version_metadata": (None, [c_void_p, c_uint64, POINTER(c_char_p), POINTER(c_char_p)]),
    "ingot_version_metric": (None, [c_void_p, c_uint64, POINTER(c_char_p), POINTER(c_double)]),
    "ingot_version_tensor": (None, [c_void_p, c_uint64, POINTER(TensorInfo)]),
    "ingot_version_blob": (None, [c_void_p, c_uint64, POINTER(BlobInfo)]),
    "ingot_version_file": (None, [c_void_p, c_uint64, POINTER(FileInfo)]),
    "ingot_version_find_tensor": (None, [c_void_p, c_char_p, POINTER(c_uint64)]),
    "ingot_version_find_blob": (None, [c_void_p, c_char_p, POINTER(c_uint64)]),
    "ingot_version_find_file": (None, [c_void_p, c_char_p, POINTER(c_uint64)]),
    "ingot_version_read": (
        None, [c_void_p, POINTER(ReadRequest), c_size_t, c_size_t, POINTER(ReadOptions), POINTER(ReadReport)]
    ),
    "ingot_version_load_dlpack": (
        None,
        [c_void_p, POINTER(c_uint64), c_size_t, POINTER(ReadOptions), POINTER(c_void_p), POINTER(ReadReport)],
    ),
}


def _load():
    library = ctypes.CDLL(_path())
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes = arguments
        if name in ("ingot_store_close", "ingot_version_close", "ingot_list_free"):
            function.restype = None
        else:
            function.restype = c_int32 if result is None else result
    if library.ingot_reader_abi_version() != 1:
        raise ImportError(f"{_path()} has another ABI than this package")
    return library


_library = _load()


def check(code):
    """Raises StoreError for a code that is not 0. To be called before anything else of the library."""
    if code == 0:
        return
    error = _library.ingot_error_last().contents

    def text(value):
        return value.decode("utf-8", "replace") or None

    raise StoreError(
        text(error.name) or f"E_{code}",
        text(error.message) or "",
        object=text(error.object),
        member=text(error.member),
        member_index=None if error.member_index < 0 else error.member_index,
        offset_bytes=None if error.offset_bytes == NO_OFFSET else error.offset_bytes,
        errno=error.errno_value or None,
    )


def call(name, *arguments):
    """Calls a function of the library; a code that is not 0 becomes a StoreError."""
    result = getattr(_library, name)(*arguments)
    if _FUNCTIONS[name][0] is None:
        check(result)
    return result


def parse_device(device):
    """(DLPack's type, number) of "cpu", "cuda" or "cuda:N"."""
    kind, _, number = str(device).partition(":")
    types = {"cpu": CPU, "cuda": CUDA}
    if kind not in types or (number and not number.isdecimal()):
        raise ValueError(f"device is 'cpu', 'cuda' or 'cuda:N', not {device!r}")
    return types[kind], int(number or 0)


__all__ = ["StoreError", "byref", "call", "check", "parse_device"]
