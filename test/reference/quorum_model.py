"""A second reading of spec/format.md section 3 and spec/commit.md sections 3 and 4, in Python.

It judges the TypeScript in format/ and therefore shares nothing with it: its own CRC-64, its own
parser of slots, its own choice of roots, written from the text alone. Standard library only.

Standard input: JSON {"slots": [base64 of 8,192 bytes, ...],
                      "copies": [[[[slot, image], ...] for each state] for each of 4 copies],
                      "stores": [[[[slot, image], ...] for each member found], ...]}
Standard output: JSON {"matrix": [verdict for each combination of states, copy 0 slowest],
                       "stores": [verdict, ...]}
"""
import base64
import itertools
import json
import struct
import sys

REFLECTED = 0x9A6C9329AC4BC9B5
ONES = (1 << 64) - 1


def make_table():
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (REFLECTED if value & 1 else 0)
        table.append(value)
    return table


TABLE = make_table()


def crc64(data):
    register = ONES
    for byte in data:
        register = TABLE[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register ^ ONES


assert crc64(b"123456789") == 0xAE8B14860A799888

RESERVED = [(17, 24), (34, 36), (38, 40), (56, 64), (189, 192), (208, 256), (960, 2048)]


class Slot:
    """What format.md F3 calls a valid slot."""

    def __init__(self, image):
        u16 = lambda at: struct.unpack_from("<H", image, at)[0]
        u64 = lambda at: struct.unpack_from("<Q", image, at)[0]
        self.self_sum, self.root_sum = u64(8), u64(24)
        self.index, self.member = u16(32), image[40:56]
        self.store, self.sequence = image[64:80], u64(104)
        self.parent, self.branch, self.in_sync = u64(112), u64(120), u64(128)
        self.count = u16(186)
        self.entries = []
        for place in range(self.count):
            at = 2048 + 96 * place
            self.entries.append({
                "uuid": image[at:at + 16], "size": u64(at + 24), "synced": (u64(at + 32), u64(at + 40), u64(at + 48)),
                "state": image[at + 64], "left": (u64(at + 80), u64(at + 88)),
            })


def is_member_size(size):
    return size % (1 << 20) == 0 and (4 << 20) <= size <= (1 << 53) - (1 << 20)


def parse(image, copy, place):
    """The slot when it is valid for this copy and place, else None."""
    if image[:8] != b"INGOTSB1":
        return None
    if struct.unpack_from("<Q", image, 8)[0] != crc64(image[24:64]):
        return None
    if struct.unpack_from("<Q", image, 24)[0] != crc64(image[64:]):
        return None
    slot = Slot(image)
    if image[16] != copy or slot.sequence < 1 or slot.sequence % 32 != place:
        return None
    if struct.unpack_from("<H", image, 36)[0] != 1 or struct.unpack_from("<H", image, 80)[0] != 1:
        return None
    if struct.unpack_from("<I", image, 84)[0] != 8192 or any(any(image[a:b]) for a, b in RESERVED):
        return None
    if slot.count > 64 or slot.index >= slot.count:
        return None
    own = slot.entries[slot.index]
    if own["uuid"] != slot.member or not is_member_size(own["size"]):
        return None
    bits = sum(1 << i for i, entry in enumerate(slot.entries) if entry["state"] == 1)
    return slot if bits == slot.in_sync else None


def choose_tip(rings):
    """commit.md section 3: (verdict, None) or (verdict, tip with its candidates)."""
    groups = {}
    for copy, ring in enumerate(rings):
        for slot in ring:
            groups.setdefault((slot.sequence, slot.root_sum, slot.self_sum), []).append((copy, slot))
    candidates = {key: found for key, found in groups.items() if len(found) >= 2}
    if not candidates:
        return ("E_CORRUPT" if groups else "E_FORMAT"), None
    sequences = [key[0] for key in candidates]
    identities = {(found[0][1].store, found[0][1].member, found[0][1].index) for found in candidates.values()}
    if len(set(sequences)) != len(sequences) or len(identities) > 1:
        return "E_CONFLICT", None
    key = max(candidates)
    tip = candidates[key][0][1]
    newer = sorted((k[0], copy) for k, found in groups.items() if k[0] > tip.sequence for copy, _ in found)
    verdict = "%s tip %d copies %s newer %s" % (
        tip.store.hex()[:4], tip.sequence, "".join(str(copy) for copy, _ in candidates[key]),
        ",".join("%d:%d" % (copy, sequence) for sequence, copy in newer) or "none")
    return verdict, (tip, {(k[0], k[1]) for k in candidates})


def choose_store(tips):
    """commit.md section 4 over (tip, candidates) of the members found."""
    if not tips:
        return "E_NOT_FOUND"
    if len({tip.store for tip, _ in tips}) > 1:
        return "E_CONFLICT"
    if len({tip.index for tip, _ in tips}) < len(tips) or len({tip.member for tip, _ in tips}) < len(tips):
        return "E_CONFLICT"
    newest = max(tip.sequence for tip, _ in tips)
    at_newest = [pair for pair in tips if pair[0].sequence == newest]
    if len({tip.root_sum for tip, _ in at_newest}) > 1:
        return "E_CONFLICT"
    root = at_newest[0][0]
    ancestors = set().union(*(candidates for _, candidates in at_newest))
    standing = {}
    for tip, _ in tips:
        if tip.index >= root.count or root.entries[tip.index]["uuid"] != tip.member:
            return "E_CONFLICT"
        entry = root.entries[tip.index]
        holder, resilvering = entry["state"] in (1, 5), entry["state"] == 5
        at_root = tip.root_sum == root.root_sum and tip.sequence == newest
        at_parent = tip.sequence == newest - 1 and tip.root_sum == root.parent
        recorded = (tip.sequence, tip.root_sum, tip.branch) == entry["synced"]
        if entry["state"] == 4:
            standing[tip.index] = "detached"
        elif holder and at_root:
            standing[tip.index] = "current"
        elif holder and (at_parent or resilvering and recorded):
            standing[tip.index] = "one-behind"
        elif not holder and (recorded or (tip.sequence, tip.root_sum) == entry["left"]):
            standing[tip.index] = "returning"
        elif recorded or (tip.sequence, tip.root_sum) in ancestors:
            standing[tip.index] = "stale"
        else:
            return "E_CONFLICT"
    if all(verdict == "detached" for verdict in standing.values()):
        return "E_CONFLICT"
    wanted = [i for i in range(root.count) if root.in_sync >> i & 1]
    present = [i for i in wanted if standing.get(i) in ("current", "one-behind")]
    half = 2 * len(present) == len(wanted) and bool(wanted) and wanted[0] in present
    quorum = 2 * len(present) > len(wanted) or half
    absent = [i for i in wanted if i not in present]
    return "root %d %s absent %s quorum %d" % (
        newest, " ".join("%d=%s" % item for item in sorted(standing.items())),
        "".join(map(str, absent)) or "none", quorum)


def main():
    work = json.load(sys.stdin)
    images = [base64.b64decode(text) for text in work["slots"]]
    parsed = {}

    def ring(copy, places):
        slots = []
        for place, image in places:
            key = (copy, place, image)
            if key not in parsed:
                parsed[key] = parse(images[image], copy, place)
            if parsed[key] is not None:
                slots.append(parsed[key])
        return slots

    rings = [[ring(copy, places) for places in states] for copy, states in enumerate(work["copies"])]
    matrix = [choose_tip([rings[copy][state] for copy, state in enumerate(states)])[0]
              for states in itertools.product(range(8), repeat=4)]
    stores = []
    for members in work["stores"]:
        tips = []
        for places in members:
            slots = ring(0, places)
            # The other copies differ in the copy index only, which no sum covers.
            tips.append(choose_tip([slots, slots, slots, slots])[1])
        stores.append(choose_store(tips))
    json.dump({"matrix": matrix, "stores": stores}, sys.stdout)


main()
