"""Stores and versions: open, look, load.

  1. A Version reads from the root that it was opened at, whatever a writer does meanwhile.
  2. Whatever is handed out was verified; a failure raises StoreError and hands out nothing.
  3. Objects close themselves as context managers and, at the latest, when they are collected.
"""

import math
import os
import threading
from ctypes import byref, c_char_p, c_double, c_uint64, c_void_p

from . import slices
from .library import (
    BLOB,
    FILE,
    TENSOR,
    CPU,
    BlobInfo,
    FileInfo,
    OpenOptions,
    ReadOptions,
    ReadReport,
    ReadRequest,
    RunInfo,
    StoreError,
    StoreInfo,
    TagInfo,
    TensorInfo,
    VersionInfo,
    call,
    parse_device,
)
from .tensors import DLPackTensor, cuda_stream, framework_of

_BACKENDS = {"auto": 0, "io_uring": 1, "threads": 2}
_PATHS = ("io_uring", "threads", "buffered", "memory")
PAGE = 1000
"""Items of one list call."""


class Store:
    """An open store. `location` is a directory of *.member files, one member, or a list of members."""

    def __init__(self, location, backend="auto"):
        self._handle = None
        paths = [location] if isinstance(location, (str, os.PathLike)) else list(location)
        encoded = [os.fsencode(path) for path in paths]
        array = (c_char_p * max(1, len(encoded)))(*encoded)
        options = OpenOptions(paths=array, path_count=len(encoded), backend=_BACKENDS[backend])
        handle = c_void_p()
        call("ingot_store_open", byref(options), byref(handle))
        self._handle = handle

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()

    def close(self):
        """Versions that are open stay usable."""
        handle, self._handle = self._handle, None
        if handle is not None:
            call("ingot_store_close", handle)

    def _open(self):
        if self._handle is None:
            raise StoreError("E_CLOSED", "the store was closed")
        return self._handle

    @property
    def info(self):
        info = StoreInfo()
        call("ingot_store_info_get", self._open(), byref(info))
        return {
            "uuid": bytes(info.uuid).hex(),
            "sequence": info.sequence,
            "versions": info.version_count,
            "members": info.member_count,
            "members_found": info.members_found,
            "degraded": bool(info.degraded),
            "may_be_behind": bool(info.may_be_behind),
            "path": _PATHS[info.path],
            "notes": [call("ingot_store_note", self._open(), n).decode() for n in range(info.note_count)],
        }

    def refresh(self):
        """Moves to the newest root. Versions that are open stay on theirs."""
        call("ingot_store_refresh", self._open())

    def _items(self, function, *arguments, read, after, info):
        while True:
            handle = c_void_p()
            call(function, self._open(), *arguments, after, PAGE, byref(handle))
            try:
                count = call("ingot_list_count", handle)
                for index in range(count):
                    one = info()
                    call(read, handle, index, byref(one))
                    after = one.id if info is VersionInfo else one.name
                    yield one
            finally:
                call("ingot_list_free", handle)
            if count < PAGE:
                return

    def runs(self):
        """Names of all runs."""
        found = self._items("ingot_runs_list", read="ingot_list_run", after=None, info=RunInfo)
        return [run.name.decode() for run in found]

    def tags(self, run):
        """{tag: version id}"""
        found = self._items("ingot_tags_list", run.encode(), read="ingot_list_tag", after=None, info=TagInfo)
        return {tag.name.decode(): tag.version_id for tag in found}

    def versions(self, run):
        """[{id, step, raw_bytes, ...}], oldest first."""
        found = self._items(
            "ingot_versions_list", run.encode(), read="ingot_list_version", after=0, info=VersionInfo
        )
        return [_version_of(version) for version in found]

    def version(self, ref, framework="pt", device="cpu"):
        """`run@tag`, `run@step`, `run` or `v:ID`."""
        return Version(self, ref, framework, device)


def _version_of(info):
    return {
        "id": info.id,
        "run": info.run.decode(),
        "step": info.step if info.has_step else None,
        "created_at_ms": info.created_at_ms,
        "tensors": info.tensor_count,
        "blobs": info.blob_count,
        "files": info.file_count,
        "raw_bytes": info.raw_bytes,
        "stored_bytes": info.stored_bytes,
        "redundancy": info.redundancy,
    }


class Version:
    """One version, with the methods of `safetensors.safe_open`: keys, get_tensor, get_slice, metadata."""

    def __init__(self, store, ref, framework="pt", device="cpu"):
        self._handle = None
        self._device = parse_device(device)
        self._empty = framework_of(framework, *self._device)
        self.faults = 0
        """Copies that failed and were passed over by reads of this object."""
        self.decoded_on_gpu = 0
        """Tensor bytes that a GPU decoded; what else is stored coded was decoded by the CPU."""
        handle = c_void_p()
        call("ingot_version_open", store._open(), ref.encode(), byref(handle))
        self._handle = handle
        info = VersionInfo()
        call("ingot_version_info_get", handle, byref(info))
        self.info = _version_of(info)
        self._metadata_count, self._metric_count = info.metadata_count, info.metric_count
        self._lock = threading.Lock()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()

    def close(self):
        handle, self._handle = self._handle, None
        if handle is not None:
            call("ingot_version_close", handle)

    def _open(self):
        if self._handle is None:
            raise StoreError("E_CLOSED", "the version was closed")
        return self._handle

    # -- Looking --

    def _tensor(self, index):
        info = TensorInfo()
        call("ingot_version_tensor", self._open(), index, byref(info))
        return info

    def _find(self, function, name):
        index = c_uint64()
        call(function, self._open(), name.encode(), byref(index))
        return index.value

    def keys(self):
        """Names of the tensors, sorted as safetensors sorts them."""
        return sorted(self._tensor(index).name.decode() for index in range(self.info["tensors"]))

    def offset_keys(self):
        """Names of the tensors in the order they are stored in."""
        return [self._tensor(index).name.decode() for index in range(self.info["tensors"])]

    def metadata(self):
        """{key: value}, {} when there is none."""
        key, value, found = c_char_p(), c_char_p(), {}
        for index in range(self._metadata_count):
            call("ingot_version_metadata", self._open(), index, byref(key), byref(value))
            found[key.value.decode()] = value.value.decode()
        return found

    def metrics(self):
        key, value, found = c_char_p(), c_double(), {}
        for index in range(self._metric_count):
            call("ingot_version_metric", self._open(), index, byref(key), byref(value))
            found[key.value.decode()] = value.value
        return found

    def blobs(self):
        """{name: bytes it has}"""
        found = {}
        for index in range(self.info["blobs"]):
            blob = BlobInfo()
            call("ingot_version_blob", self._open(), index, byref(blob))
            found[blob.name.decode()] = blob.raw_bytes
        return found

    def files(self):
        """{name: bytes it has} of the files that the version was imported from."""
        found = {}
        for index in range(self.info["files"]):
            file = FileInfo()
            call("ingot_version_file", self._open(), index, byref(file))
            found[file.name.decode()] = file.size_bytes
        return found

    # -- Reading --

    def _read(self, requests, to_cpu=False):
        """[(kind, index, offset, length, address)], addresses on the version's device."""
        array = (ReadRequest * max(1, len(requests)))(
            *[
                ReadRequest(kind=kind, index=index, offset_bytes=offset, length_bytes=length, destination=address)
                for kind, index, offset, length, address in requests
            ]
        )
        report = ReadReport()
        size = array._type_().size
        options = ReadOptions(device_type=CPU)
        if self._device[0] != CPU and not to_cpu:
            kind, number = self._device
            options = ReadOptions(device_type=kind, device_id=number, stream=cuda_stream(number))
        try:
            call("ingot_version_read", self._open(), array, len(requests), size, byref(options), byref(report))
        finally:
            with self._lock:
                self.faults += report.faults
                self.decoded_on_gpu += report.gpu_decoded_bytes

    def get_tensor(self, name):
        """The tensor, verified, in memory of its own."""
        return self.get_tensors([name])[name]

    def get_tensors(self, names):
        """{name: tensor}, read in one batch."""
        found, requests = {}, []
        for name in names:
            index = self._find("ingot_version_find_tensor", name)
            info = self._tensor(index)
            found[name], address = self._empty(info.shape[: info.rank], info.dtype.decode())
            requests.append((TENSOR, index, 0, info.raw_bytes, address))
        self._read(requests)
        return found

    def get_slice(self, name):
        """A part of the tensor by `[...]`, of any dimensions, without reading all of it."""
        return TensorSlice(self, self._find("ingot_version_find_tensor", name))

    def get_bytes(self, name):
        """The tensor's bytes as they are stored, for every dtype."""
        index = self._find("ingot_version_find_tensor", name)
        return self._bytes(TENSOR, index, self._tensor(index).raw_bytes)

    def get_blob(self, name):
        index = self._find("ingot_version_find_blob", name)
        info = BlobInfo()
        call("ingot_version_blob", self._open(), index, byref(info))
        return self._bytes(BLOB, index, info.raw_bytes)

    def get_file(self, name):
        """The file byte for byte as it was imported."""
        index = self._find("ingot_version_find_file", name)
        info = FileInfo()
        call("ingot_version_file", self._open(), index, byref(info))
        return self._bytes(FILE, index, info.size_bytes)

    def _bytes(self, kind, index, size):
        from ctypes import addressof, c_char

        data = bytearray(size)
        window = (c_char * size).from_buffer(data) if size else None
        self._read([(kind, index, 0, size, addressof(window) if size else None)], to_cpu=True)
        del window
        return bytes(data)

    def get_dlpack(self, name):
        """An object for `torch.from_dlpack` or `numpy.from_dlpack`; it outlives the version."""
        index = c_uint64(self._find("ingot_version_find_tensor", name))
        tensor = c_void_p()
        kind, number = self._device
        options = ReadOptions(device_type=kind, device_id=number)
        call("ingot_version_load_dlpack", self._open(), byref(index), 1, byref(options), byref(tensor), None)
        return DLPackTensor(tensor.value, self._device)


class TensorSlice:
    """What get_slice gives: shape, dtype, and `[...]`."""

    def __init__(self, version, index):
        self._version, self._index = version, index
        info = version._tensor(index)
        self._shape = list(info.shape[: info.rank])
        self._dtype, self._bits, self._name = info.dtype.decode(), info.dtype_bits, info.name.decode()

    def get_shape(self):
        return list(self._shape)

    def get_dtype(self):
        return self._dtype

    def __getitem__(self, index):
        parts = slices.normalize(index, self._shape)
        if self._bits % 8:
            message = f"{self._name}: elements of {self._bits} bits are not sliced; take get_bytes"
            raise StoreError("E_UNSUPPORTED", message)
        box = [high - low for low, high in map(slices.bounds, parts)]
        wanted = tuple(slices.to_index(part, slices.bounds(part)[0]) for part in parts)
        if math.prod(box) == 0:
            return self._version._empty(box, self._dtype)[0][wanted]
        itemsize = self._bits // 8
        outside, run = slices.contiguous_run(parts, self._shape)
        stride = math.prod(self._shape[outside:]) * itemsize
        if outside == 0 or math.prod(box[:outside]) == 1 or stride - run * itemsize >= slices.FAR_BYTES:
            target = self._by_runs(parts, outside, run, box, itemsize)
        else:
            target = self._by_blocks(parts, box, itemsize)
        part = target[wanted]
        if part.shape == target.shape:
            return part
        # The rest of the box is not worth keeping: the result owns just what was asked for.
        return part.clone() if hasattr(part, "clone") else part.copy()

    def _by_runs(self, parts, outside, run, box, itemsize):
        """The bounding box, each contiguous run read to its place."""
        target, address = self._version._empty(box, self._dtype)
        starts = slices.run_starts(parts, self._shape, outside)
        for first in range(0, len(starts), slices.REQUESTS_PER_CALL):
            some = starts[first : first + slices.REQUESTS_PER_CALL]
            self._version._read(
                [
                    (TENSOR, self._index, start * itemsize, run * itemsize, address + (first + at) * run * itemsize)
                    for at, start in enumerate(some)
                ]
            )
        return target

    def _by_blocks(self, parts, box, itemsize):
        """The bounding box, cut out of whole rows of the first dimension that are read block by block."""
        target, _ = self._version._empty(box, self._dtype)
        low, high = slices.bounds(parts[0])
        row_bytes = math.prod(self._shape[1:]) * itemsize
        rows = max(1, min(high - low, slices.BLOCK_BYTES // row_bytes))
        inner = tuple(slice(*slices.bounds(part)) for part in parts[1:])
        for at in range(low, high, rows):
            count = min(rows, high - at)
            block, address = self._version._empty([count, *self._shape[1:]], self._dtype)
            self._version._read([(TENSOR, self._index, at * row_bytes, count * row_bytes, address)])
            target[at - low : at - low + count] = block[(slice(None), *inner)]
        return target


def open_store(location, backend="auto"):
    return Store(location, backend)


def safe_open(location, ref, framework="pt", device="cpu", backend="auto"):
    """The version `ref` of the store at `location`, as `safetensors.safe_open` opens a file."""
    with Store(location, backend) as store:
        return Version(store, ref, framework, device)


def load(location, ref, framework="pt", device="cpu", backend="auto"):
    """{name: tensor} of all tensors, read in one batch."""
    with safe_open(location, ref, framework, device, backend) as version:
        return version.get_tensors(version.offset_keys())


def load_file(location, ref, device="cpu"):
    """As `safetensors.torch.load_file`: {name: torch tensor} on `device`."""
    return load(location, ref, "pt", device)
