#!/usr/bin/env python3
"""Puts the cases of spec/vectors before the second reader: what it takes, and with which code it refuses.

    vectors.py          prints {"cases": n, "differences": [...]}; exits with 1 when there is a difference

  1. A case with `error` has to be refused with that code; a case with `value` has to be taken.
  2. A slot of a ring has to be of the kind (valid, empty, invalid, other-version) that its value says.
  3. Numbers of a value that have the same name here have to be equal.

Vectors of the advisory areas are left out: this reader does not read them. (reader.py says what it is for.)
"""

import json
import os
import sys

from codec import read_stream
from decoding import SPEC, StoreError, crc64, layout, record
from reader import Check
from store import Store, check_pointer, read_superblock

TABLE = [{"formattedBytes": (1 << 53) - (1 << 20)}] * 64
IDENTIFIED = {
    "extent": ("Extent",),
    "manifest": ("Manifest",),
    "job": ("Job",),
    "member": ("Member",),
    "run": ("Run",),
    "sum_leaf": ("SumLeaf",),
    "tag": ("Tag",),
    "version": ("Version",),
}


class Image(Store):
    """A store that is one page, found at any address."""

    def __init__(self, context, data):
        self.notes, self.pages_seen, self.table, self.image = [], None, TABLE, data
        self.root = {"storeUuid": bytes.fromhex(context["storeUuid"]), "sequence": context["rootSequence"]}

    def read_copy(self, copy, offset, length):
        return self.image[offset : offset + length]


def case_bytes(case):
    data = bytearray(case["lengthBytes"])
    for offset, text in case["segments"]:
        data[offset : offset + len(text) // 2] = bytes.fromhex(text)
    return bytes(data)


def pointer_of(value):
    copies = [
        {"sectorLow": c["sector"] & 0xFFFFFFFF, "sectorHigh": c["sector"] >> 32, "member": c["member"]}
        for c in value["copies"]
    ]
    unused = {"sectorLow": 0xFFFFFFFF, "sectorHigh": 0xFFFF, "member": 0xFFFF}
    plain = {name: value[name] for name in ("birth", "storedBytes", "level", "kind")}
    sums = {"sum": int(value["sum"], 16), "sumAlgorithm": 1, "copyCount": len(copies)}
    return {**plain, **sums, "copies": copies + [unused] * (3 - len(copies))}


def read_page(context, data):
    store, pointer = Image(context, data), pointer_of(context["pointer"])
    check_pointer(pointer, context["rootSequence"], TABLE)
    header, used = store.page(pointer, context["treeId"])
    for _, body, flags in store.page_items(header, used):
        if header["kind"] == 2:
            store.check_child(header, layout("PagePointer", body))
        else:
            store.check_leaf_value(flags, body)


def read_region(_, data):
    check = Check.__new__(Check)
    check.errors = []
    check.region_runs(data, "region", 1 << 18)
    if check.errors:
        raise StoreError("E_FORMAT", check.errors[0])


def read_deferred(_, data):
    check = Check.__new__(Check)
    check.errors, check.ranges = [], {member: [] for member in range(64)}
    check.store = Image({"storeUuid": "", "rootSequence": 9}, b"")
    check.deferred(5, data)
    if check.errors:
        raise StoreError("E_FORMAT", check.errors[0])


def read_slot(context, data):
    try:
        block = read_superblock(data, context["copy"], context["slot"])
    except StoreError:
        return {"kind": "invalid"}
    if block is None:
        return {"kind": "empty"}
    return {**block, "kind": "other-version" if block["otherVersion"] else "valid"}


TOKEN_SCHEMES = {4: (1, 2), 5: (1,)}
SCRYPT_MOST = {"scryptLogN": 20, "scryptR": 8, "scryptP": 4}


def padded_text(data, offset, length, room):
    """The text, or None when it is no UTF-8, longer than its room, or not padded with zeros."""
    if length > room or any(data[offset + length : offset + room]):
        return None
    try:
        return data[offset : offset + length].decode("utf-8")
    except UnicodeDecodeError:
        return None


def read_key_slot(data):
    """encryption.md S17 and S17a; None when the form is wrong."""
    try:
        slot = layout("KeySlot", data)
    except StoreError:
        return None
    if slot["keyEpoch"] < 1:
        return None
    cost = [slot[name] for name in SCRYPT_MOST]
    if slot["kind"] == 1 and not all(1 <= slot[name] <= most for name, most in SCRYPT_MOST.items()):
        return None
    if slot["kind"] not in range(1, 6) or (slot["kind"] != 1 and any(cost)):
        return None
    if padded_text(data, 128, slot["labelBytes"], 128) is None:
        return None
    if slot["kind"] < 4:
        return None if any(data[256:]) else slot
    text = padded_text(data, 264, slot["tokenTextBytes"], 504)
    length = slot["tokenBlobBytes"]
    if slot["tokenScheme"] not in TOKEN_SCHEMES[slot["kind"]] or not text or not 1 <= length <= 1280:
        return None
    return None if any(data[768 + length :]) else slot


def read_key_slots(context, data):
    """encryption.md S16: the slots of a half, or None when it counts as absent."""
    if len(data) != 131072 or data[:8] != b"INGOTKS1" or int.from_bytes(data[8:16], "little") != crc64(data[16:]):
        return None
    try:
        header = layout("KeySlotsHeader", data[:4096])
    except StoreError:
        return None
    count = header["slotCount"]
    if data[16:32].hex() != context["storeUuid"] or header["generation"] < 1 or not 1 <= count <= 32:
        return None
    slots = [read_key_slot(data[at : at + 2048]) for at in range(4096, 4096 + 2048 * count, 2048)]
    if any(data[4096 + 2048 * count :]) or any(not s or s["id"] >= header["nextSlotId"] for s in slots):
        return None
    return {**header, "slots": slots}


READERS = {"superblock": read_slot, "page": read_page, "region": read_region, "deferred": read_deferred}
READERS["stream"] = read_stream
READERS["key_slots"] = read_key_slots
for _file, _names in IDENTIFIED.items():
    READERS[_file] = lambda _, data, names=_names: record(data, *names)[1]


def difference(name, case):
    """What differs between a case and its reading; None when nothing does."""
    try:
        result = READERS[name](case.get("context"), case_bytes(case))
    except StoreError as error:
        return None if error.code == case.get("error") else f"refused: {error}"
    if "error" in case:
        return f"taken, although it is {case['error']}"
    if name == "key_slots":
        return None if (result is None) == (case["value"] is None) else f"is {'absent' if result is None else 'taken'}"
    if name == "superblock" and result["kind"] != case["value"]["kind"]:
        return f"is {result['kind']}, not {case['value']['kind']}"
    if isinstance(result, dict):
        for field, value in case["value"].items():
            words = "".join("_" + c.lower() if c.isupper() else c for c in field)
            mine = result.get(field, result.get(words))
            if isinstance(value, int) and mine is not None and mine != value:
                return f"{field} is {mine}, not {value}"
        if name == "stream" and result != case["value"]:
            return f"is {result}"
    return None


def main():
    count, differences = 0, []
    for name in sorted(READERS):
        with open(os.path.join(SPEC, "vectors", f"{name}.json"), encoding="utf-8") as file:
            cases = json.load(file)["cases"]
        for case in cases:
            count += 1
            found = difference(name, case)
            if found:
                differences.append(f"{name}, {case['name']}: {found}")
    print(json.dumps({"cases": count, "differences": differences}, indent=1))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
