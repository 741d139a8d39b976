"""Coded chunks, decoded from spec/codecs.md alone: no library but zstd's, and that only where it is found.

  1. Total: any bytes give the raw bytes or a StoreError.
  2. Written for reading, not for speed: one symbol at a time.
"""

import ctypes
import ctypes.util
import struct

from decoding import crc64, lz4_block, require, round_up, StoreError

PLANES = {1: 2, 2: 2, 3: 4, 5: 1, 6: 2, 7: 4, 8: 8}
SHIFTS = {0: (0, 0), 1: (0, 0), 2: (12, 16), 4: (12, 20), 5: (16, 26)}
RAW, CONST, RANS32, LZ4, ZSTD = 0, 1, 2, 4, 5


def zstd_library():
    name = ctypes.util.find_library("zstd")
    return ctypes.CDLL(name) if name else None


ZSTD_LIBRARY = zstd_library()


def zstd_frame(block, raw_bytes):
    require(len(block) >= 5 and block[:4] == b"\x28\xb5\x2f\xfd", "zstd magic")
    find = ZSTD_LIBRARY.ZSTD_findFrameCompressedSize
    find.restype, find.argtypes = ctypes.c_size_t, [ctypes.c_char_p, ctypes.c_size_t]
    require(find(block, len(block)) == len(block), "one zstd frame and nothing after it")
    decode = ZSTD_LIBRARY.ZSTD_decompress
    decode.restype = ctypes.c_size_t
    decode.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    out = ctypes.create_string_buffer(raw_bytes)
    require(decode(out, raw_bytes, block, len(block)) == raw_bytes, "zstd frame")
    return out.raw


def rans32(section, symbol_count, shift, n):
    """Section 5."""
    require(2 <= symbol_count <= 256, "symbolCount")
    blocks = -(-n // (1 << shift))
    directory = round_up(4 * symbol_count, 16)
    states_at = round_up(directory + 4 * (blocks + 1), 128)
    words_at = states_at + 128 * blocks
    require(words_at <= len(section), "RANS32 section")
    slots, previous = [], -1
    for index in range(symbol_count):
        symbol, zero, frequency = struct.unpack_from("<BBH", section, 4 * index)
        require(symbol > previous and zero == 0 and 1 <= frequency <= 2047, "table")
        start, previous = len(slots), symbol
        require(start + frequency <= 2048, "table")
        slots += [(symbol, frequency, start)] * frequency
    require(len(slots) == 2048, "table adds up to 2,048")
    ends = struct.unpack_from(f"<{blocks + 1}I", section, directory)
    require(ends[0] == 0 and all(a <= b for a, b in zip(ends, ends[1:])), "block directory")
    require(words_at + 16 * ends[-1] == len(section), "block directory")
    out = bytearray()
    for block in range(blocks):
        states = list(struct.unpack_from("<32I", section, states_at + 128 * block))
        require(min(states) >= 1 << 16, "initial state")
        at, end = words_at + 16 * ends[block], words_at + 16 * ends[block + 1]
        count = min(1 << shift, n - (block << shift))
        symbols = bytearray(round_up(count, 256))
        for first in range(0, count, 256):
            for step in range(8):
                for lane in range(32):
                    state = states[lane]
                    symbol, frequency, start = slots[state % 2048]
                    symbols[first + 8 * lane + step] = symbol
                    state = frequency * (state >> 11) + state % 2048 - start
                    if state < 1 << 16:
                        require(at + 2 <= end, "words")
                        state = state << 16 | section[at] | section[at + 1] << 8
                        at += 2
                    states[lane] = state
        require(round_up(at - words_at, 16) == end - words_at, "words are used exactly")
        require(set(states) == {1 << 16}, "final states")
        out += symbols[:count]
    return bytes(out)


def blocked(section, codec, shift, n):
    """Section 6."""
    size = 1 << shift
    blocks = -(-n // size)
    end, out = 8 * blocks, bytearray()
    require(end <= len(section), "block directory")
    entries = []
    for block in range(blocks):
        offset, length = struct.unpack_from("<II", section, 8 * block)
        raw_bytes = min(size, n - block * size)
        end = round_up(end, 16)
        require(offset == end and 1 <= length <= raw_bytes, "block directory")
        end += length
        require(end <= len(section), "block directory")
        entries.append((offset, length, raw_bytes))
    require(end == len(section), "block directory")
    for offset, length, raw_bytes in entries:
        block = bytes(section[offset : offset + length])
        if length == raw_bytes:
            out += block
        else:
            out += lz4_block(block, raw_bytes) if codec == LZ4 else zstd_frame(block, raw_bytes)
    return bytes(out)


def element(transform, parts):
    """Section 4: the integer of one element."""
    if transform == 1:
        return (parts[1] & 0x80) << 8 | parts[0] << 7 | parts[1] & 0x7F
    if transform == 2:
        return parts[0] << 8 | parts[1]
    if transform == 3:
        return (parts[1] & 0x80) << 24 | parts[0] << 23 | (parts[1] & 0x7F) << 16 | parts[2] << 8 | parts[3]
    return sum(part << 8 * index for index, part in enumerate(parts))


def decode_stream(data, base=None):
    """(raw bytes, header) of the stream that data begins with."""
    require(len(data) >= 64 and data[:4] == b"IGC1", "magic")
    transform, delta, planes, tail_bytes, raw_bytes, stream_bytes = struct.unpack_from("<BBBBII", data, 4)
    require(PLANES.get(transform) == planes, "transform and planeCount")
    require(delta <= 1 and (delta == 1) == (base is not None), "delta")
    require(planes <= raw_bytes <= 64 << 20 and tail_bytes == raw_bytes % planes, "rawBytes")
    require(not any(data[16 + tail_bytes : 64]), "zero bytes of the header")
    end, n = 64 + 16 * planes, raw_bytes // planes
    require(end <= stream_bytes <= len(data), "streamBytes")
    codecs, parts = [], []
    for index in range(planes):
        codec, shift, symbols, offset, length, constant = struct.unpack_from("<BBHIIB", data, 64 + 16 * index)
        require(not any(data[64 + 16 * index + 13 : 64 + 16 * index + 16]), "zero bytes of the directory")
        require(codec in SHIFTS and SHIFTS[codec][0] <= shift <= SHIFTS[codec][1], "codec and blockShift")
        require(codec == RANS32 or symbols == 0, "symbolCount")
        codecs.append(codec)
        if codec == CONST:
            require(offset == 0 and length == 0, "section of a constant plane")
            parts.append(bytes([constant]) * n)
            continue
        end = round_up(end, 256)
        require(constant == 0 and offset == end and end + length <= stream_bytes, "section")
        end += length
        section = bytes(data[offset:end])
        if codec == RAW:
            require(length == n, "section of a raw plane")
            parts.append(section)
        elif codec == RANS32:
            parts.append(rans32(section, symbols, shift, n))
        else:
            parts.append(blocked(section, codec, shift, n))
    require(any(codecs) and end == stream_bytes, "sections end at streamBytes")
    raw = b"".join(element(transform, values).to_bytes(planes, "little") for values in zip(*parts))
    raw += bytes(data[16 : 16 + tail_bytes])
    if base is not None:
        raw = bytes(a ^ b for a, b in zip(raw, base))
    header = {"transform": transform, "delta": delta, "codec": max(codecs), "rawBytes": raw_bytes, "codecs": codecs}
    return raw, {**header, "streamBytes": stream_bytes}


def read_stream(context, data):
    """A case of spec/vectors/stream.json."""
    modulus = (context or {}).get("baseModulus")
    base = None
    if modulus is not None and len(data) >= 12:
        base = bytes(index % modulus for index in range(struct.unpack_from("<I", data, 8)[0]))
    raw, header = decode_stream(data, base)
    del header["streamBytes"]
    return {**header, "rawSum": f"0x{crc64(raw):016x}"}


__all__ = ["decode_stream", "read_stream", "StoreError", "ZSTD_LIBRARY"]
