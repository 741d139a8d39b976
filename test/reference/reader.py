#!/usr/bin/env python3
"""A second reader of the Ingot format, written from the specification alone.

    reader.py MEMBER... --list                a store as JSON: its root, members, runs, versions, sums
    reader.py MEMBER... --export REF OUT      the files of a version (run, run@tag, run@step or v:ID)
    reader.py MEMBER... --check [--data]      every rule that the catalog and the free map have to obey

It exists to show that spec/ is complete: a store written by the engine has to read the same here, with no
line, table or library shared. The byte tables come from spec/layout.json and spec/catalog.fbs, which are
parsed when it starts; rule numbers (F1.., C1..) in the comments are those of spec/format.md and commit.md.

  1. It opens members read-only, takes no locks and never writes to them. (So a store that a writer
     changes meanwhile may appear torn; this reader is for stores at rest.)
  2. Roots are chosen by commit.md sections 3 and 4, and by nothing else.
  3. No byte is used before the sum over it matched; when a copy fails, the next is read and the failure
     is noted.
  4. A rule that is broken is an error with the code of the specification and the place; nothing is guessed.

It never repairs, and it is never fast. Standard library only.
"""

import json
import os
import re
import struct
import sys

from decoding import StoreError, crc64, layout, record, require
from store import (
    DATA_START,
    DTYPES,
    EXTENTS,
    FREE,
    IN_SYNC,
    MEMBERS,
    MEMBERS_MAX,
    MIB,
    REGION_SECTORS,
    RUNS,
    SECTOR,
    SUM_LEAF_SLOTS,
    VERSIONS,
    Store,
    pointer_copies,
)

# ---- Commands ----------------------------------------------------------------------------------------------


def hexadecimal(number):
    return f"0x{number:016x}"


def list_objects(manifest):
    tensors = [
        {
            "name": t["name"],
            "dtype": DTYPES.get(t["dtype"], ("unknown",))[0],
            "shape": t["shape"] or [],
            "rawBytes": t["raw_bytes"],
            "rawSum": hexadecimal(t["raw_sum"]),
        }
        for t in manifest["tensors"]
    ]
    blobs = [
        {"name": b["name"], "rawBytes": b["raw_bytes"], "rawSum": hexadecimal(b["raw_sum"])}
        for b in manifest["blobs"]
    ]
    files = [
        {"name": f["name"], "sizeBytes": f["size_bytes"], "sum": hexadecimal(f["sum"])}
        for f in manifest["files"]
    ]
    return {"tensors": tensors, "blobs": blobs, "files": files}


def command_list(store):
    root, versions, runs = store.root, store.versions(), []
    for name, run in sorted(store.runs().items()):
        shown = []
        for version_id in run["versions"]:
            version = versions[version_id]
            shown.append(
                {
                    "id": version_id,
                    "step": version["step"] if version["has_step"] else None,
                    "redundancy": version["redundancy"],
                    "rawBytes": version["raw_bytes"],
                    "metadata": {m["key"]: m["value"] for m in version["metadata"] or []},
                    "metrics": {m["key"]: m["value"] for m in version["metrics"] or []},
                    **list_objects(store.manifest(version_id)),
                }
            )
        tags = {tag: value["version_id"] for tag, value in sorted(run["tags"].items())}
        runs.append({"name": name, "tags": tags, "versions": shown})
    members = [
        {
            "index": i,
            "uuid": e["uuid"].hex(),
            "state": e["state"],
            "formattedBytes": e["formattedBytes"],
            "allocatedSectors": e["allocatedSectors"],
            "found": store.verdicts.get(i),
        }
        for i, e in enumerate(store.table)
        if e
    ]
    return {
        "store": root["storeUuid"].hex(),
        "sequence": root["sequence"],
        "rootSum": hexadecimal(root["rootSum"]),
        "degraded": store.degraded,
        "mayBeBehind": store.may_be_behind,
        "members": members,
        "runs": runs,
    }


def command_export(store, reference, out):
    manifest = store.manifest(store.resolve(reference))
    single = len(manifest["files"]) == 1 and out.endswith(".safetensors")
    for index, file in enumerate(manifest["files"]):
        path = out if single else os.path.join(out, *file["name"].split("/"))
        data = store.file_bytes(manifest, index)
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with open(path, "xb") as target:
            target.write(data)
        if file["mode"]:
            os.chmod(path, file["mode"] & 0o777)
    left = [o["name"] for o in manifest["tensors"] + manifest["blobs"] if o["file_index"] < 0]
    if left:
        store.notes.append(f"{len(left)} objects belong to no file and were not exported: {left[:5]}")
    return {"files": len(manifest["files"]), "notInFiles": len(left)}


class Check:
    """Proves the rules that span records: the partition of each data area, references, counts, births."""

    def __init__(self, store, read_data):
        self.store, self.read_data, self.errors, self.read_extents = store, read_data, [], {}
        self.ranges = {i: [] for i, e in enumerate(store.table) if e}

    def expect(self, condition, message):
        if not condition:
            self.errors.append(message)

    def take(self, member, sector, sectors, what):
        if member in self.ranges:
            self.ranges[member].append((sector, sectors, what))
        else:
            self.errors.append(f"{what} lies on member {member}, which the root does not know")

    def run(self):
        store = self.store
        store.pages_seen = []
        used_extents = self.versions()
        leaf_users = self.extents(used_extents)
        self.sum_leaves(leaf_users)
        self.free_space()
        self.members()
        pages, store.pages_seen = store.pages_seen, None
        pages = {tuple(pointer_copies(p)): p for p in pages}
        for pointer in pages.values():
            self.page_copies(pointer)
        self.partition()
        return {"errors": self.errors, "pages": len(pages), "extents": len(used_extents)}

    def count(self, tree, items):
        self.expect(
            items == self.store.root["treeItemCounts"][tree],
            f"tree {tree}: {items} items, superblock differs",
        )

    def versions(self):
        """Both catalogs of versions agree; returns {extent id: [versions that name it]}."""
        store, versions, runs, used = self.store, self.store.versions(), self.store.runs(), {}
        self.count(VERSIONS, sum(1 for _ in store.items(VERSIONS)))
        self.count(RUNS, sum(1 for _ in store.items(RUNS)))
        self.expect(len(versions) == store.root["versionCount"], "versionCount")
        listed = sorted(v for run in runs.values() for v in run["versions"])
        self.expect(listed == sorted(versions), "runs tree and versions tree list different versions")
        for name, run in runs.items():
            ids = set(run["versions"])
            steps = sorted((versions[i]["step"], i) for i in ids if i in versions and versions[i]["has_step"])
            self.expect(
                run["run"] is not None and run["run"]["version_count"] == len(ids), f"{name}: version_count"
            )
            self.expect(steps == sorted(run["steps"]), f"{name}: steps differ from its versions")
            for tag, value in run["tags"].items():
                self.expect(value["version_id"] in ids, f"{name}@{tag}: names no version of the run")
        for version_id, version in versions.items():
            self.expect(
                1 <= version_id < store.root["nextVersionId"] and version["id"] == version_id,
                f"version {version_id}: id",
            )
            self.expect(
                version["run"] in runs and version_id in runs[version["run"]]["versions"],
                f"version {version_id}: run",
            )
            for extent in self.manifest(version_id, version):
                used.setdefault(extent, []).append(version_id)
        return used

    def manifest(self, version_id, version):
        manifest, extents = self.store.manifest(version_id), set()
        for pairs in (version["metadata"] or [], version["metrics"] or []):
            keys = [pair["key"].encode() for pair in pairs]
            self.expect(keys == sorted(set(keys)), f"version {version_id}: metadata or metrics not sorted")
        for kind, field in (("tensors", "tensor_count"), ("blobs", "blob_count"), ("files", "file_count")):
            names = [o["name"] for o in manifest[kind]]
            self.expect(len(names) == version[field] == len(set(names)), f"version {version_id}: {kind}")
        objects = manifest["tensors"] + manifest["blobs"]
        self.expect(
            sum(o["raw_bytes"] for o in objects) == version["raw_bytes"], f"version {version_id}: raw_bytes"
        )
        for item in objects:
            where, dtype = f"version {version_id}, {item['name']}", item.get("dtype", 255)
            if "dtype" in item:
                bits = DTYPES.get(dtype, ("", 0))[1]
                for length in item["shape"] or []:
                    bits *= length
                self.expect(
                    dtype in DTYPES and bits == 8 * item["raw_bytes"], f"{where}: shape and raw_bytes"
                )
            pieces, inline = item["pieces"] or [], item["inline_bytes"] or b""
            self.expect(
                sum(p["raw_bytes"] for p in pieces) + len(inline) == item["raw_bytes"], f"{where}: lengths"
            )
            self.expect(item["file_index"] < len(manifest["files"]), f"{where}: file_index")
            extents |= {piece["extent_id"] for piece in pieces}
            self.pieces(where, dtype, item, pieces)
            if self.read_data:
                self.try_to(lambda: self.store.object_bytes(item), where)
        if self.read_data:
            for index in range(len(manifest["files"])):
                self.try_to(
                    lambda: self.store.file_bytes(manifest, index), f"version {version_id}, file {index}"
                )
        return extents

    def pieces(self, where, dtype, item, pieces):
        """F16: dtypes of chunks, alignment, and chunks that a long tensor has for itself."""
        for piece in pieces:
            extent_id = piece["extent_id"]
            extent = self.read_extents.get(extent_id) or self.store.extent(extent_id)
            self.read_extents[extent_id] = extent
            self.expect(extent["dtype"] == dtype, f"{where}: dtypes mixed in extent {extent_id}")
            self.expect(
                piece["raw_bytes"] >= 1
                and piece["raw_offset"] % SECTOR == 0
                and piece["raw_offset"] + piece["raw_bytes"] <= extent["raw_bytes"],
                f"{where}: piece",
            )
            is_long = item["raw_bytes"] >= 1 << extent["segment_shift"]
            self.expect(
                not is_long or piece["raw_offset"] == 0 and piece["raw_bytes"] == extent["raw_bytes"],
                f"{where}: a long tensor shares extent {extent_id}",
            )

    def try_to(self, action, where):
        try:
            return action()
        except StoreError as error:
            self.errors.append(f"{where}: {error}")
            return None

    def extents(self, used):
        """Every extent and its references; returns {sum leaf id: number of extents}."""
        store, leaf_users, items = self.store, {}, 0
        deltas = self.deltas()
        for key, value, birth in store.items(EXTENTS):
            items += 1
            extent_id = int.from_bytes(key, "big")
            self.expect(len(key) == 8 and 1 <= extent_id < store.root["nextId"], f"extent {extent_id}: id")
            name, _ = record(value, "Extent", "SumLeaf")
            if name == "SumLeaf":
                leaf_users.setdefault(extent_id, 0)
                continue
            extent = record(value, "Extent")[1]
            store.check_extent(extent, birth)
            self.expect(
                extent["reference_count"] == len(used.get(extent_id, [])) + deltas.get(extent_id, 0),
                f"extent {extent_id}: reference_count",
            )
            used.setdefault(extent_id, [])
            if extent["sum_leaf_id"]:
                leaves = -(-(extent["sum_leaf_slot"] + extent["segments"]) // SUM_LEAF_SLOTS)
                for leaf in range(extent["sum_leaf_id"], extent["sum_leaf_id"] + leaves):
                    leaf_users[leaf] = leaf_users.get(leaf, 0) + 1
            places = [copy["member"] for copy in extent["copies"]]
            in_sync = sum(1 for e in store.table if e and e["state"] == IN_SYNC)
            self.expect(
                len(set(places)) == len(places) or in_sync < len(places),
                f"extent {extent_id}: copies share a member",
            )
            for copy in extent["copies"]:
                self.take(
                    copy["member"], copy["sector"], extent["stored_bytes"] // SECTOR, f"extent {extent_id}"
                )
            if self.read_data:
                self.extent_copies(extent_id, extent)
        self.count(EXTENTS, items)
        return leaf_users

    def deltas(self):
        """{extent id: number of extents that are a delta of it}; depths are checked on the way (codecs.md K11)."""
        counts, depths = {}, {}
        for key, value, _ in self.store.items(EXTENTS):
            if record(value, "Extent", "SumLeaf")[0] == "SumLeaf":
                continue
            extent_id = int.from_bytes(key, "big")
            extent = record(value, "Extent")[1]
            depths[extent_id] = extent["delta_depth"]
            if extent["delta"]:
                base = extent["delta_base_id"]
                counts[base] = counts.get(base, 0) + 1
                self.expect(depths.get(base, -1) == extent["delta_depth"] - 1, f"extent {extent_id}: depth")
        return counts

    def extent_copies(self, extent_id, extent):
        sums = self.store.segment_sums(extent)
        step = 1 << extent["segment_shift"]
        for copy in extent["copies"]:
            raw_sum_input = []
            for k, expected in enumerate(sums):
                data = self.store.read_copy(
                    (copy["member"], copy["sector"], copy["placement_birth"]),
                    k * step,
                    min(step, extent["stored_bytes"] - k * step),
                )
                if data is None or crc64(data) != expected:
                    self.errors.append(
                        f"extent {extent_id} on member {copy['member']}: segment {k} is absent or damaged"
                    )
                    break
                raw_sum_input.append(data)
            else:
                stored = b"".join(raw_sum_input)
                raw, rest = stored[: extent["raw_bytes"]], stored[extent["raw_bytes"] :]
                if extent["codec"]:
                    raw, rest = self.store.decode(extent_id, extent, stored)
                self.expect(
                    crc64(raw) == extent["raw_sum"] and not any(rest),
                    f"extent {extent_id}: raw sum",
                )

    def sum_leaves(self, users):
        for leaf_id, count in users.items():
            value, birth = self.store.get(EXTENTS, leaf_id.to_bytes(8, "big"))
            leaf, _ = self.store.sum_leaf(leaf_id, value, birth)
            self.expect(leaf["reference_count"] == count, f"sum leaf {leaf_id}: reference_count")

    def page_copies(self, pointer):
        """Every copy of a page, its range and its sum."""
        copies = pointer_copies(pointer)
        self.expect(len(copies) >= 2, f"page at {copies[0]} has one copy")
        for member, sector in copies:
            self.take(member, sector, pointer["storedBytes"] // SECTOR, f"page of kind {pointer['kind']}")
            data = self.store.read_copy((member, sector, pointer["birth"]), 0, pointer["storedBytes"])
            self.expect(
                data is not None and crc64(data) == pointer["sum"],
                f"page at member {member} sector {sector} is absent or damaged",
            )

    # -- Free space (section 7) --

    def area(self, member):
        return DATA_START // SECTOR, (self.store.table[member]["formattedBytes"] - MIB) // SECTOR

    def free_space(self):
        items, regions = 0, {}
        for key, value, _ in self.store.items(FREE):
            items += 1
            if key[:1] == b"\x01" and len(key) == 7:
                regions[int.from_bytes(key[1:3], "big"), int.from_bytes(key[3:], "big")] = value
            else:
                require(key[:1] == b"\x02" and len(key) == 9, "free tree: key")
                self.deferred(int.from_bytes(key[1:], "big"), value)
        self.count(FREE, items)
        for member in self.ranges:
            first, end = self.area(member)
            for region in range(first // REGION_SECTORS, (end - 1) // REGION_SECTORS + 1):
                low, high = max(first, region * REGION_SECTORS), min(end, (region + 1) * REGION_SECTORS)
                value = regions.pop((member, region), None)
                if value is None:
                    self.take(member, low, high - low, "free")
                    continue
                for start, count in self.region_runs(
                    value, f"region {region} of member {member}", high - low
                ):
                    start += region * REGION_SECTORS
                    self.expect(low <= start and start + count <= high, f"region {region}: run outside")
                    self.take(member, start, count, "free")
        self.expect(not regions, f"region records of no region: {sorted(regions)}")

    def region_runs(self, value, where, sectors):
        header, runs = layout("RegionHeader", value), []
        if header["encoding"] == 0:
            require(len(value) >= 12, f"{where}: length")
            (count,) = struct.unpack_from("<I", value, 8)
            require(len(value) == 12 + 8 * count and count <= 4096, f"{where}: length")
            runs = list(struct.iter_unpack("<II", value[12:]))
            require(all(start + n <= REGION_SECTORS for start, n in runs), f"{where}: a run past the region")
        else:
            require(
                header["encoding"] == 1 and len(value) == 8 + REGION_SECTORS // 8,
                f"{where}: encoding or length",
            )
            bits = "".join(f"{byte:08b}"[::-1] for byte in value[8:])
            runs = [(m.start(), m.end() - m.start()) for m in re.finditer("1+", bits)]
            self.expect(len(runs) > 4096, f"{where}: a bitmap of few runs")
        free = sum(count for _, count in runs)
        self.expect(free == header["freeSectors"] and free < sectors, f"{where}: freeSectors")
        for (start, count), (following, _) in zip(runs, runs[1:]):
            self.expect(count and start + count < following, f"{where}: runs not ascending or adjacent")
        return runs

    def deferred(self, sequence, value):
        self.expect(sequence <= self.store.root["sequence"], f"deferred record of a later root {sequence}")
        count, previous = layout("DeferredHeader", value)["count"], (-1, 0)
        require(count >= 1 and len(value) == 8 + 16 * count, f"deferred {sequence}: length")
        for index in range(count):
            entry = layout("DeferredEntry", value, 8 + 16 * index)
            member, sector = entry["member"], entry["sectorLow"] | entry["sectorHigh"] << 32
            self.expect(
                entry["sectorCount"] >= 1 and (member, sector) > previous, f"deferred {sequence}: order"
            )
            self.take(member, sector, entry["sectorCount"], f"deferred by root {sequence}")
            previous = member, sector + entry["sectorCount"]

    def members(self):
        items = 0
        for key, value, _ in self.store.items(MEMBERS):
            items += 1
            if key[:2] == b"\xff\xff":
                job = record(value, "Job")[1]
                self.expect(key[2:] == bytes([job["kind"]]) and job["kind"] in (1, 2), "job record")
                continue
            member, index = record(value, "Member")[1], int.from_bytes(key, "big")
            entry = self.store.table[index] if index < MEMBERS_MAX else None
            self.expect(
                len(key) == 2
                and entry is not None
                and entry["uuid"] == member["uuid"]
                and entry["formattedBytes"] == member["formatted_bytes"],
                f"member record {index}",
            )
        self.count(MEMBERS, items)
        self.expect(items == len(self.ranges), "members tree: not one record for each member")

    def partition(self):
        """F14: what is listed covers each data area once, without gap or overlap."""
        for member, ranges in self.ranges.items():
            at, end = self.area(member)
            allocated, before = 0, "the start"
            for sector, count, what in sorted(ranges):
                if sector != at:
                    kind = "a gap" if sector > at else "an overlap"
                    self.errors.append(
                        f"member {member}: {kind} at sector {min(at, sector)}, {before} / {what}"
                    )
                at, before = max(at, sector + count), what
                allocated += 0 if what.startswith(("free", "deferred")) else count
            self.expect(at == end, f"member {member}: the data area ends at {end}, the last range at {at}")
            self.expect(
                allocated == self.store.table[member]["allocatedSectors"],
                f"member {member}: {allocated} sectors allocated, its table entry differs",
            )


def main(arguments):
    options = [i for i, a in enumerate(arguments) if a.startswith("--")]
    if not options or options[0] == 0:
        print(__doc__, file=sys.stderr)
        return 2
    paths, command, rest = arguments[: options[0]], arguments[options[0]], arguments[options[0] + 1 :]
    try:
        store = Store(paths)
        if command == "--list" and not rest:
            result = command_list(store)
        elif command == "--export" and len(rest) == 2:
            result = command_export(store, *rest)
        elif command == "--check" and rest in ([], ["--data"]):
            result = Check(store, bool(rest)).run()
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except StoreError as error:
        print(f"reader: {error}", file=sys.stderr)
        return 1
    for note in sorted(set(store.notes)):
        print(f"reader: {note}", file=sys.stderr)
    print(json.dumps(result, indent=1, sort_keys=True))
    return 1 if result.get("errors") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
