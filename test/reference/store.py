"""Opens the members of a store, chooses its root, and reads trees, records, extents and files from it.

  1. Roots are chosen by commit.md sections 3 and 4, and by nothing else.
  2. No byte is used before the sum over it matched; when a copy fails, the next is read and the failure
     is noted.
  3. A rule that is broken is an error with the code of the specification and the place; nothing is guessed.
  4. Members are opened read-only, without locks. (reader.py says what this reader is for.)

Rule numbers (F1.., C1..) are those of spec/format.md and spec/commit.md.
"""

import os
import re
import struct

from codec import PLANES, decode_stream
from decoding import (
    Layout,
    StoreError,
    check_run_name,
    check_tag_name,
    crc64,
    layout,
    lz4_block,
    record,
    require,
    round_up,
    text,
)

KIB, MIB = 1 << 10, 1 << 20
SECTOR = 4096
SLOT_BYTES, RING_SLOTS = 8192, 32
DATA_START = MIB
MEMBERS_MAX = 64
REGION_SECTORS = 1 << 18
U53 = 1 << 53
INLINE_VALUE_MAX, LARGE_VALUE_MAX = 2048, 512 * MIB
PIECE_RAW_BYTES = 245760
SUM_LEAF_SLOTS = 504
LEAF, BRANCH, VALUE_INDEX, VALUE_PIECE, SUM_LEAF = 1, 2, 3, 4, 5
RUNS, VERSIONS, EXTENTS, FREE, MEMBERS = 0, 1, 2, 3, 4
IN_SYNC, DETACHED, RESILVERING = 1, 4, 5
# spec/versions.md section 5: code -> (name, bits of one element)
DTYPES = dict(
    enumerate(
        [
            ("BOOL", 8),
            ("F4", 4),
            ("F6_E2M3", 6),
            ("F6_E3M2", 6),
            ("U8", 8),
            ("I8", 8),
            ("F8_E5M2", 8),
            ("F8_E4M3", 8),
            ("F8_E8M0", 8),
            ("F8_E4M3FNUZ", 8),
            ("F8_E5M2FNUZ", 8),
            ("I16", 16),
            ("U16", 16),
            ("F16", 16),
            ("BF16", 16),
            ("I32", 32),
            ("U32", 32),
            ("F32", 32),
            ("C64", 64),
            ("F64", 64),
            ("I64", 64),
            ("U64", 64),
        ],
        1,
    )
)


# ---- Members and superblocks (format.md 2 and 3, commit.md 3) ----------------------------------------------


def size_is_legal(size):
    return size % MIB == 0 and 4 * MIB <= size <= U53 - (1 << 20)


def pointer_is_null(pointer):
    return not any(
        pointer[f] for f in ("sum", "birth", "storedBytes", "copyCount", "level", "kind", "sumAlgorithm")
    ) and all(c == {"sectorLow": 0, "sectorHigh": 0, "member": 0} for c in pointer["copies"])


def pointer_copies(pointer):
    return [
        (c["member"], c["sectorLow"] | c["sectorHigh"] << 32)
        for c in pointer["copies"][: pointer["copyCount"]]
    ]


def check_pointer(pointer, birth_limit, table):
    """F5; birth_limit is the birth of the page, or the sequence of the root, that it stands in."""
    require(pointer["sumAlgorithm"] == 1 and 1 <= pointer["copyCount"] <= 3, "pointer: algorithm or copies")
    for index, copy in enumerate(pointer["copies"]):
        unused = copy == {"sectorLow": 0xFFFFFFFF, "sectorHigh": 0xFFFF, "member": 0xFFFF}
        require(unused == (index >= pointer["copyCount"]), "pointer: unused copy not all ones")
    stored = pointer["storedBytes"]
    require(stored % SECTOR == 0 and SECTOR <= stored <= 262144, "pointer: storedBytes")
    require(
        1 <= pointer["kind"] <= 5
        and pointer["level"] <= 12
        and (pointer["level"] > 0) == (pointer["kind"] == BRANCH),
        "pointer: kind or level",
    )
    require(1 <= pointer["birth"] <= birth_limit, "pointer: birth")
    require(not any(pointer.get("secret", b"")), "pointer: a secret without encryption")
    for member, sector in pointer_copies(pointer):
        require(in_data_area(table, member, sector, stored), f"pointer: copy outside member {member}")


def in_data_area(table, member, sector, stored_bytes):
    return (
        member < len(table)
        and table[member] is not None
        and DATA_START <= sector * SECTOR <= table[member]["formattedBytes"] - MIB - stored_bytes
    )


def read_superblock(slot, copy, k):
    """F3: a dictionary (with `otherVersion`) of a valid slot; None when empty; StoreError when invalid."""
    if not any(slot):
        return None
    require(slot[:8] == b"INGOTSB1", "no magic")
    self_sum, root_sum = struct.unpack_from("<Q", slot, 8)[0], struct.unpack_from("<Q", slot, 24)[0]
    require(crc64(slot[24:64]) == self_sum and crc64(slot[64:]) == root_sum, "sum", "E_CORRUPT")
    sequence, major, incompat = (
        struct.unpack_from(f, slot, o)[0] for f, o in (("<Q", 104), ("<H", 80), ("<Q", 88))
    )
    require(slot[16] == copy and sequence >= 1 and sequence % RING_SLOTS == k, "stands in another slot")
    other = major != 1 or incompat != 0
    if other:
        return {
            "otherVersion": True,
            "sequence": sequence,
            "rootSum": root_sum,
            "selfSum": self_sum,
            "storeUuid": slot[64:80],
            "memberUuid": slot[40:56],
            "memberIndex": struct.unpack_from("<H", slot, 32)[0],
        }
    block = layout("Superblock", slot)
    block["otherVersion"] = False
    count, table = block["memberCount"], block["members"]
    require(
        block["sumAlgorithm"] == 1
        and block["slotBytes"] == SLOT_BYTES
        and block["regionShift"] == 30
        and block["branchId"]
        and block["nextId"]
        and block["nextVersionId"],
        "a constant is wrong",
    )
    require(block["memberIndex"] < count <= MEMBERS_MAX, "memberCount")
    for field in (
        "sequence",
        "createdAtMs",
        "committedAtMs",
        "membershipEpoch",
        "nextId",
        "nextVersionId",
        "keyEpoch",
        "versionCount",
    ):
        require(block[field] < U53, f"{field} is 2^53 or more")
    require(
        not (block["keyEpoch"] or block["sealedSequence"] or block["eraseBelow"])
        and not any(block["rootSalt"])
        and not any(block["rootRecord"]),
        "fields of encryption are not zero",
    )
    require(all(n < U53 for n in block["treeItemCounts"]), "an item count is 2^53 or more")
    uuids = []
    for index, entry in enumerate(table):
        if entry["state"] == 0 or index >= count:
            require(not any(slot[2048 + 96 * index : 2048 + 96 * (index + 1)]), "an unused entry is not zero")
            require(not block["inSyncMembers"] >> index & 1, "an unused member is in sync")
            table[index] = None
            continue
        require(
            entry["state"] <= 5
            and entry["flags"] <= 3
            and size_is_legal(entry["formattedBytes"])
            and any(entry["uuid"]),
            "member entry",
        )
        for field in ("failureDomain", "syncedSequence", "allocatedSectors", "birthSequence", "leftSequence"):
            require(entry[field] < U53, f"{field} is 2^53 or more")
        if entry["state"] in (IN_SYNC, RESILVERING):
            require(entry["leftSequence"] == entry["leftRootSum"] == 0, "a holder of roots has left none")
        require((entry["state"] == IN_SYNC) == bool(block["inSyncMembers"] >> index & 1), "inSyncMembers")
        uuids.append(entry["uuid"])
    require(len(set(uuids)) == len(uuids), "two entries with one uuid")
    own = table[block["memberIndex"]]
    require(own is not None and own["uuid"] == block["memberUuid"], "not the member of its own table")
    for pointer, items in zip(block["treeRoots"], block["treeItemCounts"]):
        require(pointer_is_null(pointer) == (items == 0), "tree root and item count disagree")
        if items:
            require(pointer["kind"] in (LEAF, BRANCH), "tree root of a wrong kind")
            check_pointer(pointer, block["sequence"], table)
    return block


class MemberFile:
    """One member: its file, the valid slots of its four rings, its candidates and its tip."""

    def __init__(self, path, notes):
        self.path, self.file = path, open(path, "rb")
        self.size = self.file.seek(0, os.SEEK_END)
        self.copies, self.saw_magic = [], False
        heads = [self.ring(copy, 64 * KIB + 256 * KIB * copy, notes) for copy in (0, 1)]
        own = [b for ring in heads for b in ring if not b["otherVersion"]]
        newest = max(own, key=lambda b: b["sequence"], default=None)
        end = newest["members"][newest["memberIndex"]]["formattedBytes"] if newest else self.size // MIB * MIB
        tails = [self.ring(copy, end - MIB + 256 * KIB * (copy - 2), notes) for copy in (2, 3)]
        self.choose(heads + tails, notes)
        formatted = self.tip["members"][self.index]["formattedBytes"]
        require(self.size >= formatted, f"{path}: shorter than its formatted size")

    def read(self, offset, length):
        self.file.seek(offset)
        return self.file.read(length)

    def ring(self, copy, offset, notes):
        data, valid = self.read(max(offset, 0), RING_SLOTS * SLOT_BYTES), []
        for k in range(len(data) // SLOT_BYTES):
            slot = data[k * SLOT_BYTES : (k + 1) * SLOT_BYTES]
            self.saw_magic = self.saw_magic or slot[:8] == b"INGOTSB1"
            try:
                block = read_superblock(slot, copy, k)
                if block:
                    valid.append(block)
            except StoreError as error:
                notes.append(f"{self.path}: copy {copy} slot {k} is invalid: {error}")
        return valid

    def choose(self, rings, notes):
        counts = {}
        for ring in rings:
            for block in ring:
                counts.setdefault((block["sequence"], block["rootSum"], block["selfSum"]), []).append(block)
        self.candidates = [blocks[0] for blocks in counts.values() if len(blocks) >= 2]
        require(
            counts, f"{self.path}: " + ("no valid superblock" if self.saw_magic else "not an Ingot member")
        )  # C11
        require(
            self.candidates,
            f"{self.path}: superblock quorum lost, found {sorted(k[0] for k in counts)}",
            "E_CORRUPT",
        )
        require(
            len({b["sequence"] for b in self.candidates}) == len(self.candidates),
            "fork within a member",
            "E_CONFLICT",
        )
        identities = {(b["storeUuid"], b["memberUuid"], b["memberIndex"]) for b in self.candidates}
        require(len(identities) == 1, f"{self.path}: two identities", "E_CONFLICT")  # C9
        self.tip = max(self.candidates, key=lambda b: b["sequence"])
        require(
            not self.tip["otherVersion"], f"{self.path}: its newest root is of another version", "E_VERSION"
        )
        lone = [s for s, _, _ in counts if s > self.tip["sequence"]]
        if lone:
            notes.append(f"{self.path}: newer lone copies {sorted(lone)}")  # C12
        self.index = self.tip["memberIndex"]


# ---- The store: root, pages, trees, records ----------------------------------------------------------------


def check_coding(extent):
    """F11a: the four ids and the delta base."""
    base = [extent[f] for f in ("delta_base_id", "delta_base_offset", "delta_depth")]
    if not extent["codec"]:
        require(not (extent["transform"] or extent["delta"] or any(base)), "extent: raw with a transform")
        return
    require(extent["codec"] in (1, 2, 4, 5), "extent: codec")
    require(extent["transform"] in PLANES and extent["raw_bytes"] >= PLANES[extent["transform"]], "extent: transform")
    require(extent["delta"] <= 1, "extent: delta")
    if extent["delta"]:
        require(base[0] >= 1 and base[1] + extent["raw_bytes"] <= 64 * MIB and 1 <= base[2] <= 8, "extent: delta base")
    else:
        require(not any(base), "extent: base without a delta")


class Store:
    def __init__(self, paths):
        self.notes, self.files, self.pages_seen = [], {}, None
        found = []
        for path in paths:
            try:
                found.append(MemberFile(path, self.notes))
            except StoreError as error:
                if len(paths) == 1 or error.code in ("E_CONFLICT", "E_VERSION"):
                    raise
                self.notes.append(f"{path}: left out: {error}")
        require(found, "no member can be used", "E_CORRUPT")
        self.choose_root(found)

    def choose_root(self, found):
        """commit.md section 4."""
        for field in ("storeUuid", "memberUuid", "memberIndex"):
            values = {m.tip[field] for m in found}
            require(
                len(values) == (1 if field == "storeUuid" else len(found)),
                f"members disagree in {field}",
                "E_CONFLICT",
            )
        self.root = root = max((m.tip for m in found), key=lambda b: b["sequence"])
        at_root = [m for m in found if m.tip["sequence"] == root["sequence"]]
        require(len({m.tip["rootSum"] for m in at_root}) == 1, "fork between members", "E_CONFLICT")
        known = {(b["sequence"], b["rootSum"]) for m in at_root for b in m.candidates}
        self.table, self.verdicts, present = root["members"], {}, 0
        for member in found:
            tip, entry = member.tip, self.table[member.index]
            require(
                entry is not None and entry["uuid"] == tip["memberUuid"],
                f"{member.path}: foreign member",
                "E_CONFLICT",
            )
            holder = entry["state"] in (IN_SYNC, RESILVERING)
            name = (tip["sequence"], tip["rootSum"])
            recorded = (*name, tip["branchId"]) == (
                entry["syncedSequence"],
                entry["syncedRootSum"],
                entry["syncedBranchId"],
            )
            if entry["state"] == DETACHED:
                self.verdicts[member.index] = "detached"
                continue
            if holder and member in at_root:
                verdict = "current"
            elif holder and (
                name == (root["sequence"] - 1, root["parentRootSum"]) or entry["state"] == RESILVERING and recorded
            ):
                verdict = "one behind"
            elif recorded or not holder and name == (entry["leftSequence"], entry["leftRootSum"]) or name in known:
                verdict = "stale"
            else:
                raise StoreError("E_CONFLICT", f"{member.path}: fork")
            self.verdicts[member.index] = verdict
            self.files[member.index] = member
            present += verdict != "stale" and entry["state"] == IN_SYNC
        require(self.files, "every member found was detached", "E_CONFLICT")
        in_sync = [i for i, e in enumerate(self.table) if e and e["state"] == IN_SYNC]
        lowest_here = self.verdicts.get(in_sync[0]) in ("current", "one behind")
        self.may_be_behind = not (2 * present > len(in_sync) or 2 * present == len(in_sync) and lowest_here)
        self.degraded = present < len(in_sync)

    def serves(self, member, birth):
        """F15; a stale member that is found counts with the root it really holds."""
        if member not in self.files:
            return False
        if self.verdicts[member] != "stale":
            return True
        return birth <= self.files[member].tip["sequence"]

    def read_copy(self, copy, offset, length):
        member, sector, birth = copy
        if not self.serves(member, birth):
            return None
        return self.files[member].read(sector * SECTOR + offset, length)

    def page(self, pointer, tree, owner=0):
        """The page a pointer names, verified (F6); returns (header, used bytes)."""
        stored = pointer["storedBytes"]
        if self.pages_seen is not None:
            self.pages_seen.append(pointer)
        for member, sector in pointer_copies(pointer):
            data = self.read_copy((member, sector, pointer["birth"]), 0, stored)
            if data is not None and len(data) == stored and crc64(data) == pointer["sum"]:
                break
            self.notes.append(f"page at member {member} sector {sector} is absent or damaged")
        else:
            raise StoreError("E_CORRUPT", f"no good copy of the page at {pointer_copies(pointer)}")
        header = layout("PageHeader", data)
        where = f"page at {pointer_copies(pointer)[0]}"
        require(
            header["magic"] == b"IPG1" and all(header[f] == pointer[f] for f in ("kind", "level", "birth")),
            where,
        )
        require(
            header["treeId"] == tree
            and header["storeUuid"] == self.root["storeUuid"]
            and header["ownerId"] == owner,
            f"{where}: tree, store or owner",
        )
        require(
            64 <= header["usedBytes"] <= stored and not any(data[header["usedBytes"] :]),
            f"{where}: usedBytes",
        )
        return header, data[: header["usedBytes"]]

    def page_items(self, header, data):
        """F7: [(key, value or pointer bytes, flags)] of a leaf or branch page."""
        leaf = header["kind"] == LEAF
        slot = "LeafSlot" if leaf else "BranchSlot"
        slot_bytes, count, items = Layout.all[slot].bytes, header["itemCount"], []
        at = 64 + slot_bytes * count
        require(count >= 1 and at <= len(data), "page: item count")
        for index in range(count):
            entry = layout(slot, data, 64 + index * slot_bytes)
            value_bytes = entry["valueBytes"] if leaf else 80
            require(
                entry["offset"] == at and at + entry["keyBytes"] + value_bytes <= len(data),
                "page: items not packed",
            )
            key = data[at : at + entry["keyBytes"]]
            at += entry["keyBytes"]
            items.append((key, data[at : at + value_bytes], entry.get("flags", 0)))
            at += value_bytes
            require(len(key) <= 1024 and (len(key) == 0) == (not leaf and index == 0), "page: key length")
            require(index == 0 or items[-2][0] < key, "page: keys do not ascend")
        require(at == len(data), "page: items do not end at usedBytes")
        return items

    def items(self, tree, first=b"", last=None):
        """All (key, value, birth of the leaf) of a tree with first <= key < last, in order."""
        pointer = self.root["treeRoots"][tree]
        if not pointer_is_null(pointer):
            yield from self.walk(tree, pointer, b"", None, first, last)

    def walk(self, tree, pointer, lower, upper, first, last):
        header, data = self.page(pointer, tree)
        items = self.page_items(header, data)
        for index, (key, body, flags) in enumerate(items):
            if header["kind"] == BRANCH:
                low = key if index else lower
                high = items[index + 1][0] if index + 1 < len(items) else upper
                require(lower <= low and (upper is None or low < upper), "branch key out of bounds")
                child = layout("PagePointer", body)
                self.check_child(header, child)
                if (high is None or high > first) and (last is None or low < last):
                    yield from self.walk(tree, child, low, high, first, last)
                continue
            require(lower <= key and (upper is None or key < upper), "leaf key out of bounds")
            self.check_leaf_value(flags, body)
            if first <= key and (last is None or key < last):
                value = self.large_value(tree, body, header["birth"]) if flags else body
                yield key, value, header["birth"]

    def check_child(self, header, child):
        check_pointer(child, header["birth"], self.table)
        require(child["kind"] in (LEAF, BRANCH) and child["level"] == header["level"] - 1, "child level")

    def check_leaf_value(self, flags, body):
        require(flags <= 1, "leaf flags")
        require(len(body) == 112 if flags else len(body) <= INLINE_VALUE_MAX, "leaf value: length")

    def large_value(self, tree, body, birth):
        """F8."""
        value = layout("LargeValue", body)
        require(INLINE_VALUE_MAX < value["rawBytes"] <= LARGE_VALUE_MAX, "LargeValue: rawBytes")
        pointer = value["pointer"][0]
        check_pointer(pointer, birth, self.table)
        require(pointer["kind"] == VALUE_INDEX, "LargeValue: kind")
        header, data = self.page(pointer, tree)
        count = value["pieceCount"]
        require(count == header["itemCount"] >= 1 and len(data) == 64 + 96 * count, "value index: item count")
        out, remaining = [], value["rawBytes"]
        for index in range(count):
            entry = layout("ValuePieceEntry", data, 64 + 96 * index)
            pointer = entry["pointer"][0]
            check_pointer(pointer, header["birth"], self.table)
            raw, stored = entry["rawBytes"], entry["storedBytes"]
            require(
                raw == min(PIECE_RAW_BYTES, remaining) >= 1 and pointer["kind"] == VALUE_PIECE, "value piece"
            )
            require(pointer["storedBytes"] == round_up(64 + stored, SECTOR), "value piece: stored length")
            piece_header, piece = self.page(pointer, tree)
            require(piece_header["itemCount"] == 0 and len(piece) == 64 + stored, "value piece: header")
            require(
                entry["codec"] <= 1 and (stored < raw if entry["codec"] else stored == raw),
                "value piece: codec",
            )
            out.append(lz4_block(piece[64:], raw) if entry["codec"] else piece[64:])
            remaining -= raw
        require(remaining == 0, "LargeValue: pieces do not add up")
        return b"".join(out)

    def get(self, tree, key):
        for found, value, birth in self.items(tree, key, key + b"\x00"):
            return value, birth
        raise StoreError("E_CORRUPT", f"tree {tree} has no item {key!r}")

    # -- Runs, versions and references --

    def versions(self):
        """{id: Version} of the store."""
        result = {}
        for key, value, _ in self.items(VERSIONS):
            require(len(key) == 9 and key[8] <= 1, "versions tree: key")
            if key[8] == 0:
                result[int.from_bytes(key[:8], "big")] = record(value, "Version")[1]
        return result

    def manifest(self, version):
        manifest = record(self.get(VERSIONS, version.to_bytes(8, "big") + b"\x01")[0], "Manifest")[1]
        return {kind: manifest[kind] or [] for kind in ("tensors", "blobs", "files")}

    def runs(self):
        """{name: {run, tags: {name: Tag}, steps: [(step, id)], versions: [id]}}"""
        result = {}
        for key, value, _ in self.items(RUNS):
            name, _, rest = key.partition(b"\x00")
            name = text(name)
            check_run_name(name)
            entry = result.setdefault(name, {"run": None, "tags": {}, "steps": [], "versions": []})
            require(rest, "runs tree: key")
            kind, rest = rest[0], rest[1:]
            if kind == 1:
                require(not rest, "runs tree: key of a run")
                entry["run"] = record(value, "Run")[1]
            elif kind == 2:
                check_tag_name(text(rest))
                entry["tags"][text(rest)] = record(value, "Tag")[1]
            else:
                require(
                    len(rest) == {3: 16, 4: 8}.get(kind) and (kind == 3 or not value),
                    "runs tree: key or value of an index item",
                )
                if value:  # F21: the record of the version, as the versions tree has it
                    own = self.get(VERSIONS, rest[8:] + b"\x00")
                    require(own[0] == value, "runs tree: record of a step")
                numbers = [int.from_bytes(rest[i : i + 8], "big") for i in range(0, len(rest), 8)]
                entry["steps"].append(tuple(numbers)) if kind == 3 else entry["versions"].append(numbers[0])
        return result

    def resolve(self, reference):
        """A version id of run, run@tag, run@step (the newest of that step) or v:ID."""
        run, at, tail = reference.partition("@")
        runs = self.runs()
        if run not in runs and not at and re.fullmatch(r"v:\d+", reference):
            return int(reference[2:])
        require(run in runs, f"no run {run}", "E_NOT_FOUND")
        if tail.isdecimal():
            found = [version for step, version in runs[run]["steps"] if step == int(tail)]
            require(found, f"{run} has no step {tail}", "E_NOT_FOUND")
            return max(found)
        tag = runs[run]["tags"].get(tail if at else "latest")
        require(tag is not None, f"{run} has no tag {tail or 'latest'}", "E_NOT_FOUND")
        return tag["version_id"]

    # -- Extents (section 6) --

    def extent(self, extent_id):
        value, birth = self.get(EXTENTS, extent_id.to_bytes(8, "big"))
        extent = record(value, "Extent")[1]
        self.check_extent(extent, birth)
        return extent

    def check_extent(self, extent, birth):
        stored, raw = extent["stored_bytes"], extent["raw_bytes"]
        require(not extent["cipher"], "extent: enciphered")
        check_coding(extent)
        require(1 <= raw <= 64 * MIB, "extent: lengths")
        whole = round_up(raw, SECTOR)
        require(
            stored % SECTOR == 0 and 0 < stored < whole if extent["codec"] else stored == whole, "extent: lengths"
        )
        require(12 <= extent["segment_shift"] <= 20 and extent["sum_algorithm"] == 1, "extent: segments")
        require(
            1 <= extent["content_birth"] <= birth and extent["reference_count"] >= 1,
            "extent: birth or references",
        )
        require(1 <= len(extent["copies"]) <= 3, "extent: copies")
        for copy in extent["copies"]:
            require(
                in_data_area(self.table, copy["member"], copy["sector"], stored),
                "extent: copy outside its member",
            )
            require(1 <= copy["placement_birth"] <= birth, "extent: placement birth")
            require(copy["reserved0"] == copy["reserved1"] == 0, "extent: reserved")
        count = -(-stored // (1 << extent["segment_shift"]))
        if count <= 32:
            require(
                len(extent["segment_sums"] or []) == count and not extent["sum_leaf_id"],
                "extent: segment sums",
            )
        else:
            slot = extent["sum_leaf_slot"]
            require(not extent["segment_sums"] and extent["sum_leaf_id"], "extent: segment sums")
            require(
                slot + count <= SUM_LEAF_SLOTS if count <= SUM_LEAF_SLOTS else slot == 0,
                "extent: sum leaf slot",
            )
        extent["segments"] = count

    def sum_leaf(self, leaf_id, value, birth):
        """The sums of one leaf, from its SumLeaf record (F13)."""
        leaf = record(value, "SumLeaf")[1]
        pointer = {
            "sum": leaf["sum"],
            "birth": leaf["birth"],
            "storedBytes": SECTOR,
            "kind": SUM_LEAF,
            "level": 0,
            "sumAlgorithm": 1,
            "copyCount": len(leaf["copies"]),
            "copies": [
                {
                    "sectorLow": c["sector"] & 0xFFFFFFFF,
                    "sectorHigh": c["sector"] >> 32,
                    "member": c["member"],
                }
                for c in leaf["copies"]
            ],
        }
        pointer["copies"] += [{"sectorLow": 0xFFFFFFFF, "sectorHigh": 0xFFFF, "member": 0xFFFF}] * (
            3 - len(leaf["copies"])
        )
        check_pointer(pointer, birth, self.table)
        header, data = self.page(pointer, EXTENTS, leaf_id)
        count = header["itemCount"]
        require(
            count == leaf["sum_count"] and 1 <= count <= SUM_LEAF_SLOTS and len(data) == 64 + 8 * count,
            "sum leaf",
        )
        return leaf, list(struct.unpack_from(f"<{count}Q", data, 64))

    def segment_sums(self, extent):
        if extent["segment_sums"]:
            return extent["segment_sums"]
        sums, leaf_id, slot = [], extent["sum_leaf_id"], extent["sum_leaf_slot"]
        while len(sums) < extent["segments"]:
            _, leaf = self.sum_leaf(leaf_id, *self.get(EXTENTS, leaf_id.to_bytes(8, "big")))
            require(slot < len(leaf), "sum leaf: too short")
            sums += leaf[slot : slot + extent["segments"] - len(sums)]
            leaf_id, slot = leaf_id + 1, 0
        return sums

    def read_extent(self, extent_id, raw_offset, raw_bytes):
        """Raw bytes of an extent, segment by segment from the first copy whose sum matches (F12)."""
        extent = self.extent(extent_id)
        require(
            raw_bytes >= 1 and raw_offset + raw_bytes <= extent["raw_bytes"],
            f"piece outside extent {extent_id}",
        )
        if extent["codec"]:
            stored = self.stored_bytes(extent_id, extent, 0, extent["stored_bytes"])
            raw, _ = self.decode(extent_id, extent, stored)
            require(crc64(raw) == extent["raw_sum"], f"extent {extent_id}: raw sum", "E_CORRUPT")
            return raw[raw_offset : raw_offset + raw_bytes]
        return self.stored_bytes(extent_id, extent, raw_offset, raw_bytes)

    def decode(self, extent_id, extent, stored):
        """The raw bytes of a coded chunk (codecs.md), and what follows its stream."""
        base = None
        if extent["delta"]:
            require(extent["delta_base_id"] < extent_id, f"extent {extent_id}: its base is not older")
            base = self.read_extent(extent["delta_base_id"], extent["delta_base_offset"], extent["raw_bytes"])
        raw, header = decode_stream(stored, base)
        same = all(header[name] == extent[name] for name in ("transform", "delta", "codec"))
        require(same and header["rawBytes"] == extent["raw_bytes"], f"extent {extent_id}: another stream")
        return raw, stored[header["streamBytes"] :]

    def stored_bytes(self, extent_id, extent, offset, count):
        """Verified stored bytes [offset, offset + count)."""
        shift, stored, out = extent["segment_shift"], extent["stored_bytes"], []
        sums = self.segment_sums(extent)
        first = offset >> shift
        for k in range(first, (offset + count - 1 >> shift) + 1):
            start, end = k << shift, min(k + 1 << shift, stored)
            for copy in extent["copies"]:
                data = self.read_copy(
                    (copy["member"], copy["sector"], copy["placement_birth"]), start, end - start
                )
                if data is not None and len(data) == end - start and crc64(data) == sums[k]:
                    break
                self.notes.append(
                    f"extent {extent_id} segment {k}: absent or damaged on member {copy['member']}"
                )
            else:
                raise StoreError("E_CORRUPT", f"no good copy of extent {extent_id} segment {k}")
            out.append(data)
        start = offset - (first << shift)
        return b"".join(out)[start : start + count]

    def object_bytes(self, item):
        """The bytes of a tensor or blob, its sum verified (F16)."""
        size = item["raw_bytes"]
        if item["inline_bytes"]:
            require(not item["pieces"] and size <= INLINE_VALUE_MAX, f"{item['name']}: inline")
            data = item["inline_bytes"]
        else:
            data = b"".join(
                self.read_extent(p["extent_id"], p["raw_offset"], p["raw_bytes"])
                for p in item["pieces"] or []
            )
        require(len(data) == size, f"{item['name']}: {len(data)} bytes, not {size}")
        require(crc64(data) == item["raw_sum"], f"{item['name']}: sum of the whole", "E_CORRUPT")
        return data

    def file_bytes(self, manifest, index):
        """A file of a version, as it was imported (F17)."""
        file = manifest["files"][index]
        if file["format"] == 1:
            parts, at = [file["prefix"] or b""], len(file["prefix"] or b"")
            for tensor in sorted(
                (t for t in manifest["tensors"] if t["file_index"] == index), key=lambda t: t["file_offset"]
            ):
                require(tensor["file_offset"] == at, f"{file['name']}: gap before {tensor['name']}")
                parts.append(self.object_bytes(tensor))
                at += tensor["raw_bytes"]
            data = b"".join(parts)
        else:
            require(file["format"] == 0, f"{file['name']}: unknown file format")
            blobs = [b for b in manifest["blobs"] if b["file_index"] == index]
            require(
                len(blobs) == 1 and blobs[0]["name"] == file["name"],
                f"{file['name']}: not one blob of that name",
            )
            data = self.object_bytes(blobs[0])
        require(
            len(data) == file["size_bytes"] and crc64(data) == file["sum"],
            f"{file['name']}: size or sum",
            "E_CORRUPT",
        )
        return data
