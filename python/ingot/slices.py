"""Parts of a tensor without reading the whole: which bytes a slice of any dimensions needs.

  1. The result equals `whole[index]` of numpy, for ints, slices with any step, and `...`.
  2. What is read beside the result is bounded: rows are read in blocks of at most BLOCK_BYTES; where the wanted runs
     are far apart, each run is read alone.
"""

BLOCK_BYTES = 32 * 1024 * 1024
"""Memory beside the result."""
FAR_BYTES = 256 * 1024
"""Runs this far apart are read one by one: segments are 64 KiB, so that reading what lies between would cost more."""
REQUESTS_PER_CALL = 16384


def normalize(index, shape):
    """One range or int for each dimension. IndexError as numpy raises it."""
    index = index if isinstance(index, tuple) else (index,)
    if sum(1 for part in index if part is Ellipsis) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    for at, part in enumerate(index):
        if part is Ellipsis:
            rest = len(shape) - (len(index) - 1)
            index = index[:at] + (slice(None),) * rest + index[at + 1 :]
            break
    if len(index) > len(shape):
        raise IndexError(f"too many indices: the tensor is {len(shape)}-dimensional, {len(index)} were given")
    index += (slice(None),) * (len(shape) - len(index))
    parts = []
    for part, length in zip(index, shape):
        if isinstance(part, slice):
            parts.append(range(*part.indices(length)))
            continue
        number = part.__index__()
        if not -length <= number < length:
            raise IndexError(f"index {number} is out of bounds for a dimension of {length}")
        parts.append(number % length)
    return parts


def bounds(part):
    """First and end of the positions that a part touches."""
    if isinstance(part, int):
        return part, part + 1
    if len(part) == 0:
        return 0, 0
    return min(part[0], part[-1]), max(part[0], part[-1]) + 1


def to_index(part, low):
    """The part as an index into an array that begins at position `low`."""
    if isinstance(part, int):
        return part - low
    if len(part) == 0:
        return slice(0, 0)
    end = part[-1] - low + (1 if part.step > 0 else -1)
    return slice(part[0] - low, None if end < 0 else end, part.step)


def contiguous_run(parts, shape):
    """(dimensions outside, bytes' unit): how many leading dimensions have to be walked, and elements in one run."""
    run, outside = 1, len(shape)
    while outside > 0:
        low, high = bounds(parts[outside - 1])
        run *= high - low
        outside -= 1
        if high - low != shape[outside]:
            break
    return outside, run


def run_starts(parts, shape, outside):
    """Offsets in elements of each contiguous run, in row-major order of the bounding box."""
    strides, stride = [], 1
    for length in reversed(shape):
        strides.append(stride)
        stride *= length
    strides.reverse()
    inner = sum(bounds(parts[at])[0] * strides[at] for at in range(outside, len(shape)))
    starts = [inner]
    for at in range(outside):
        low, high = bounds(parts[at])
        starts = [start + position * strides[at] for start in starts for position in range(low, high)]
    return starts
