"""What a reader of the Ingot format needs first: sums, LZ4 blocks, byte tables, FlatBuffers.

The byte tables and the schema are parsed from spec/layout.json and spec/catalog.fbs; nothing is shared
with the engine. (reader.py says what this reader is for.)

  1. Decoders are total: whatever the bytes are, the result is a value or a StoreError.
  2. Memory is bounded by the input: a FlatBuffer is refused when what is reached exceeds twice its length
     (F9), an LZ4 block when it gives more than its raw length.
"""

import json
import os
import re
import struct

SPEC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "spec")


class StoreError(Exception):
    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code


def require(condition, message, code="E_FORMAT"):
    if not condition:
        raise StoreError(code, message)


def text(data):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise StoreError("E_FORMAT", f"not UTF-8: {data!r}") from None


def round_up(value, unit):
    return (value + unit - 1) // unit * unit


# ---- Sums: CRC-64/NVME -------------------------------------------------------------------------------------
# Long inputs are folded as one large integer. With x^a = sum of x^e (mod P), squaring in GF(2) gives
# x^(a*2^k) = sum of x^(e*2^k): the first bits move that far down in a few shifts. The rest goes through a
# table.

POLYNOMIAL = 0xAD93D23594C93659
ONES64 = (1 << 64) - 1


def _crc_table():
    reflected = int(f"{POLYNOMIAL:064b}"[::-1], 2)
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (reflected if byte & 1 else 0)
        table.append(byte)
    return table


def _sparsest_power(limit=1024):
    best, remainder = None, 1
    for power in range(1, limit):
        remainder <<= 1
        if remainder >> 64:
            remainder ^= 1 << 64 | POLYNOMIAL
        if power > 128 and (best is None or remainder.bit_count() < best[1].bit_count()):
            best = power, remainder
    return best[0], [e for e in range(64) if best[1] >> e & 1]


CRC_TABLE = _crc_table()
FOLD_POWER, FOLD_EXPONENTS = _sparsest_power()


def crc64(data):
    """The sum of bytes (format.md section 1)."""
    register = ONES64
    if len(data) > FOLD_POWER:
        bits = 8 * len(data)
        message = int.from_bytes(data, "little") ^ ONES64
        register = 0
        for k in range(bits.bit_length(), 2, -1):
            distance = FOLD_POWER << k
            while bits > distance:
                taken = min(bits - distance, distance - (63 << k))
                first = message & ((1 << taken) - 1)
                message >>= taken
                for exponent in FOLD_EXPONENTS:
                    message ^= first << (distance - taken - (exponent << k))
                bits -= taken
        data = message.to_bytes(bits // 8, "little")
    for byte in data:
        register = CRC_TABLE[(register ^ byte) & 255] ^ register >> 8
    return register ^ ONES64


def lz4_block(data, raw_bytes):
    """Decodes one LZ4 block of exactly raw_bytes."""
    out, position = bytearray(), 0

    def length(nibble):
        nonlocal position
        if nibble == 15:
            while True:
                nibble += data[position]
                position += 1
                if data[position - 1] != 255:
                    break
        return nibble

    try:
        while True:
            token = data[position]
            position += 1
            literals = length(token >> 4)
            require(position + literals <= len(data), "LZ4: literals past the end")
            out += data[position : position + literals]
            position += literals
            if position == len(data):
                break
            distance = data[position] | data[position + 1] << 8
            position += 2
            count = length(token & 15) + 4
            require(0 < distance <= len(out) and len(out) + count <= raw_bytes, "LZ4: bad match")
            start = len(out) - distance
            if distance >= count:
                out += out[start : start + count]
            else:
                out += (out[start:] * (count // distance + 1))[:count]
    except IndexError:
        raise StoreError("E_FORMAT", "LZ4: block ends early") from None
    require(len(out) == raw_bytes, "LZ4: wrong decoded length")
    return bytes(out)


# ---- Fixed structures (layout.json) ------------------------------------------------------------------------


class Layout:
    """One structure: a struct format made from its fields; zero fields are checked."""

    all = {}

    def __init__(self, name, definition):
        codes = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q"}
        self.name, self.bytes, self.fields, form, at = name, definition["bytes"], [], "<", 0
        for field in definition["fields"]:
            kind, count = field["type"], field.get("count", 1)
            require(field["offset"] == at, f"layout.json: {name}.{field['name']} leaves a gap")
            if kind in codes:
                form += f"{count}{codes[kind]}"
                size = count * struct.calcsize("<" + codes[kind])
            else:
                size = {"bytes": 1, "zero": 1, "uuid": 16}.get(kind) or Layout.all[kind].bytes
                size *= count
                form += f"{size}s"
            self.fields.append((field["name"], kind, count if "count" in field else None))
            at += size
        self.struct = struct.Struct(form)
        require(at == self.bytes == self.struct.size, f"layout.json: {name} has another size")

    def read(self, data, offset=0):
        require(offset + self.bytes <= len(data), f"{self.name} past the end")
        values, result = list(self.struct.unpack_from(data, offset)), {}
        for name, kind, count in self.fields:
            if kind[0] == "u" and kind != "uuid" and count:
                result[name], values = values[:count], values[count:]
                continue
            value = values.pop(0)
            if kind == "zero":
                require(not any(value), f"{self.name}.{name} is not zero")
            elif kind in Layout.all:
                inner = Layout.all[kind]
                result[name] = [inner.read(value, i * inner.bytes) for i in range(count or 1)]
            else:
                result[name] = value
        return result


with open(os.path.join(SPEC, "layout.json"), encoding="utf-8") as layout_file:
    for _name, _definition in json.load(layout_file)["structures"].items():
        Layout.all[_name] = Layout(_name, _definition)


def layout(name, data, offset=0):
    return Layout.all[name].read(data, offset)


# ---- FlatBuffers (catalog.fbs; F9) -------------------------------------------------------------------------

SCALARS = {
    "bool": "?",
    "ubyte": "B",
    "uint16": "H",
    "uint32": "I",
    "int32": "i",
    "uint64": "Q",
    "double": "d",
}
IDENTIFIERS = {
    b"IGRN": "Run",
    b"IGTG": "Tag",
    b"IGVR": "Version",
    b"IGMF": "Manifest",
    b"IGEX": "Extent",
    b"IGSL": "SumLeaf",
    b"IGMB": "Member",
    b"IGJB": "Job",
}
RESERVED = {
    "key_id",
    "record_sets",
    "global_shape",
    "slice_start",
    "ordinal",
    "tags",
}


def _schema():
    with open(os.path.join(SPEC, "catalog.fbs"), encoding="utf-8") as file:
        schema = re.sub(r"//[^\n]*", "", file.read())
    tables, structs = {}, {}
    for kind, name, body in re.findall(r"(table|struct)\s+(\w+)\s*\{(.*?)\}", schema, re.S):
        fields = re.findall(r"(\w+)\s*:\s*(\[?\w+\]?)\s*(?:=\s*(-?\d+))?\s*(\(required\))?\s*;", body)
        if kind == "table":
            tables[name] = [(f, t, int(default or 0), bool(required)) for f, t, default, required in fields]
        else:
            structs[name] = (
                struct.Struct("<" + "".join(SCALARS[t] for _, t, _, _ in fields)),
                [f for f, _, _, _ in fields],
            )
    return tables, structs


TABLES, STRUCTS = _schema()


class Record:
    """Verifies one FlatBuffer while it is turned into dictionaries."""

    def __init__(self, data):
        self.data, self.reached = data, 0

    def get(self, code, at):
        size = struct.calcsize("<" + code)
        require(0 <= at and at + size <= len(self.data), "FlatBuffer: offset outside")
        return struct.unpack_from("<" + code, self.data, at)[0]

    def reach(self, at, size):
        require(at % 4 == 0 and at + size <= len(self.data), "FlatBuffer: outside or not aligned")
        self.reached += size
        require(self.reached <= 2 * len(self.data), "FlatBuffer: parts are shared too often")

    def table(self, name, at):
        start = at - self.get("i", at)
        vtable_bytes, table_bytes = self.get("H", start), self.get("H", start + 2)
        require(
            start % 2 == 0
            and vtable_bytes >= 4
            and vtable_bytes % 2 == 0
            and table_bytes >= 4
            and start + vtable_bytes <= len(self.data),
            "FlatBuffer: bad vtable",
        )
        self.reach(at, table_bytes)
        result = {}
        for index, (field, kind, default, required) in enumerate(TABLES[name]):
            slot = 4 + 2 * index
            offset = self.get("H", start + slot) if slot < vtable_bytes else 0
            size = struct.calcsize("<" + SCALARS[kind]) if kind in SCALARS else 4
            require(offset == 0 or 4 <= offset <= table_bytes - size, "FlatBuffer: field outside its table")
            require(offset or not required, f"FlatBuffer: {name}.{field} is missing")
            if kind in SCALARS:
                result[field] = self.get(SCALARS[kind], at + offset) if offset else default
            elif offset == 0:
                result[field] = None
            else:
                result[field] = self.vector(kind, at + offset + self.get("I", at + offset))
            require(field not in RESERVED or not result[field], f"{name}.{field} is reserved")
        return result

    def vector(self, kind, at):
        count = self.get("I", at)
        element = kind.strip("[]")
        size = (
            1
            if kind == "string"
            else (
                4
                if element in TABLES
                else (
                    STRUCTS[element][0].size
                    if element in STRUCTS
                    else struct.calcsize("<" + SCALARS[element])
                )
            )
        )
        self.reach(at, 4 + count * size)
        body = self.data[at + 4 : at + 4 + count * size]
        if kind == "string":
            require(self.get("B", at + 4 + count) == 0, "FlatBuffer: a string without its final zero")
            return text(body)
        if element == "ubyte":
            return body
        if element in STRUCTS:
            form, names = STRUCTS[element]
            return [dict(zip(names, values)) for values in form.iter_unpack(body)]
        if element in TABLES:
            return [
                self.table(element, at + 4 + 4 * i + offset)
                for i, (offset,) in enumerate(struct.iter_unpack("<I", body))
            ]
        return [value for value, in struct.iter_unpack("<" + SCALARS[element], body)]


def record(data, *names):
    """Reads a catalog record that has to be one of the named tables; returns (name, fields)."""
    require(len(data) >= 8, "FlatBuffer: too short")
    name = IDENTIFIERS.get(bytes(data[4:8]))
    require(name in names, f"record is {bytes(data[4:8])!r}, expected {names}")
    reader = Record(data)
    fields = reader.table(name, reader.get("I", 0))
    if name == "Version":
        check_run_name(fields["run"])
    elif name == "Manifest":
        for item in (fields["tensors"] or []) + (fields["blobs"] or []):
            require(1 <= len(item["name"].encode()) <= 1000 and "\0" not in item["name"], "object name")
        for file in fields["files"] or []:
            segments = file["name"].split("/")
            require(not {"", ".", ".."} & set(segments) and "\0" not in file["name"], "file name")
    return name, fields


# Names (F10)


def check_run_name(name):
    require(1 <= len(name.encode()) <= 512 and "@" not in name and min(name) >= " ", f"run name {name!r}")
    require(not {"", ".", ".."} & set(name.split("/")), f"run name {name!r}: a segment")


def check_tag_name(name):
    require(1 <= len(name.encode()) <= 128 and min(name) >= " ", f"tag name {name!r}")
    require(not any(c in "@/" for c in name), f"tag name {name!r}")
    require(any(c not in "0123456789" for c in name), f"tag name {name!r}: all digits")
