// The tree and its page store, one fault at a time. The model test is fuzz/btree.test.ts.
//
// Invariants
//   1. Every test names the fault that it guards against.
//   2. Damage is done to the bytes on the members, never to objects in memory.

import assert from 'node:assert/strict';
import test from 'node:test';
import { Tree } from '../../engine/btree.js';
import type { PageSink, WalkedPage } from '../../engine/btree.js';
import { compressBlock, decompressBlockInto } from '../../engine/lz4_block.js';
import { crc64 } from '../../format/checksum.js';
import { isStoreError } from '../../format/errors.js';
import { PAGE_HEADER_BYTES } from '../../format/layout.gen.js';
import { encodeBranch } from '../../format/page_encode.js';
import { decodePointer, encodePointer } from '../../format/pointer.js';
import type { PagePointer } from '../../format/pointer.js';
import type { TreeItem } from '../../engine/contract.js';
import { decodeCatalogPage } from '../../engine/tree_page.js';
import { MemoryMembers } from './btree_memory_io.js';
import { MIB, makeStore, open, put } from './catalog_support.js';

const EXTENTS = 2;

function keyOf(id: number): Uint8Array {
  const key = new Uint8Array(8);
  new DataView(key.buffer).setUint32(4, id);
  return key;
}

function valueFor(id: number, length = 40): Uint8Array {
  return new Uint8Array(length).map((_, i) => (id * 31 + i * (id % 7)) & 0xff);
}

/** A committed tree of ids 1..count. */
async function filledTree(members: MemoryMembers, count: number): Promise<Tree> {
  const tree = Tree.open(members.store(), EXTENTS, null, 0);
  for (let id = 1; id <= count; id += 1) await tree.put(keyOf(id), valueFor(id));
  members.commit(tree, 1);
  return tree;
}

function reopen(members: MemoryMembers, tree: Tree, cacheBytes = 2 ** 24): Tree {
  return Tree.open(members.store({ cacheBytes }), EXTENTS, tree.rootPointer, tree.itemCount);
}

async function walk(tree: Tree): Promise<WalkedPage[]> {
  const pages: WalkedPage[] = [];
  for await (const page of tree.walkPages()) pages.push(page);
  return pages;
}

function damage(
  members: MemoryMembers,
  pointer: PagePointer,
  copy: number,
): { member: number; offsetBytes: number } {
  const place = pointer.copies[copy];
  assert.ok(place !== undefined);
  const bytes = members.pages(place.member).get(place.sector);
  assert.ok(bytes !== undefined);
  bytes[100] = (bytes[100] as number) ^ 1;
  return { member: place.member, offsetBytes: place.sector * 4_096 };
}

/** Changes a page on all copies and gives the pointer that vouches for the change. */
function forge(
  members: MemoryMembers,
  pointer: PagePointer,
  change: (bytes: Uint8Array) => void,
): PagePointer {
  let sum = 0n;
  for (const { member, sector } of pointer.copies) {
    const bytes = members.pages(member).get(sector);
    assert.ok(bytes !== undefined);
    change(bytes);
    sum = crc64(bytes);
  }
  return { ...pointer, sum };
}

test('a flipped bit in one copy of a page is passed over, named, and not noticed by the lookup', async () => {
  const members = new MemoryMembers(2, 2);
  const tree = await filledTree(members, 2_000);
  const leaf = (await walk(tree)).find((page) => page.level === 0);
  assert.ok(leaf !== undefined);
  const places = [damage(members, leaf.pointer, 0)];
  const again = reopen(members, tree);
  for (let i = 0; i < 6; i += 1) {
    again.pages.dropCache();
    assert.deepEqual(await again.get(keyOf(1)), valueFor(1));
    assert.deepEqual(await again.get(keyOf(2_000)), valueFor(2_000));
  }
  assert.ok(members.faults.length > 0, 'the rotation reaches the damaged copy');
  for (const fault of members.faults) {
    assert.equal(fault.kind, 'checksum');
    assert.equal(fault.treeId, EXTENTS);
    assert.deepEqual({ member: fault.member, offsetBytes: fault.offsetBytes }, places[0]);
  }
});

test('a page without a good copy is E_CORRUPT naming tree, member and offset; other pages still read', async () => {
  const members = new MemoryMembers(2, 2);
  const tree = await filledTree(members, 2_000);
  const leaf = (await walk(tree)).find((page) => page.level === 0);
  assert.ok(leaf !== undefined);
  const places = [damage(members, leaf.pointer, 0), damage(members, leaf.pointer, 1)];
  const again = reopen(members, tree);
  await assert.rejects(
    async () => again.get(keyOf(1)),
    (error: unknown) => {
      assert.ok(isStoreError(error, 'E_CORRUPT'));
      assert.match(error.message, /extents/);
      const { memberIndex, offsetBytes } = error.where;
      assert.ok(places.some((place) => place.member === memberIndex && place.offsetBytes === offsetBytes));
      assert.ok(error.safe !== undefined && error.next !== undefined);
      return true;
    },
  );
  assert.deepEqual(await again.get(keyOf(2_000)), valueFor(2_000));
  const verdicts = await again.pages.verifyCopies(leaf.pointer, EXTENTS);
  assert.deepEqual(
    verdicts.map((verdict) => verdict?.kind),
    ['checksum', 'checksum'],
  );
});

const isLost = (error: unknown): boolean => isStoreError(error, 'E_DEVICE_LOST');
const isMalformed = (error: unknown): boolean => isStoreError(error, 'E_FORMAT');

test('members that are not in use are E_DEVICE_LOST, not a corrupt page', async () => {
  const members = new MemoryMembers(3, 2);
  const tree = await filledTree(members, 10);
  for (const copy of tree.rootPointer?.copies ?? []) members.missing.add(copy.member);
  await assert.rejects(async () => reopen(members, tree).get(keyOf(1)), isLost);
});

test('a branch that points to itself is E_FORMAT, not a hang', async () => {
  const members = new MemoryMembers(1, 1);
  const tree = await filledTree(members, 2_000);
  const root = tree.rootPointer;
  assert.ok(root !== null && root.level === 1);
  const forged = forge(members, root, (bytes) => encodePointer(root, bytes, pointerAt(bytes, 0)));
  const again = Tree.open(members.store(), EXTENTS, forged, tree.itemCount);
  await assert.rejects(
    async () => again.get(keyOf(1)),
    (error: unknown) => isStoreError(error, 'E_FORMAT'),
  );
  await assert.rejects(
    async () => walk(again),
    (error: unknown) => isStoreError(error, 'E_FORMAT'),
  );
});

/** Where the pointer of child `index` stands in a branch page. */
function pointerAt(bytes: Uint8Array, index: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const slot = PAGE_HEADER_BYTES + index * 8;
  return view.getUint32(slot, true) + view.getUint16(slot + 4, true);
}

test('two children that changed places under right sums are E_FORMAT, not wrong answers', async () => {
  const members = new MemoryMembers(1, 1);
  const tree = await filledTree(members, 2_000);
  const root = tree.rootPointer;
  assert.ok(root !== null && root.level === 1);
  const forged = forge(members, root, (bytes) => {
    const first = bytes.slice(pointerAt(bytes, 0), pointerAt(bytes, 0) + 80);
    const second = bytes.slice(pointerAt(bytes, 1), pointerAt(bytes, 1) + 80);
    bytes.set(second, pointerAt(bytes, 0));
    bytes.set(first, pointerAt(bytes, 1));
  });
  const again = Tree.open(members.store(), EXTENTS, forged, tree.itemCount);
  await assert.rejects(
    async () => again.get(keyOf(1)),
    (error: unknown) => isStoreError(error, 'E_FORMAT'),
  );
  await assert.rejects(
    async () => walk(again),
    (error: unknown) => isStoreError(error, 'E_FORMAT'),
  );
});

test('a child on an unknown member or past the data area is E_FORMAT, never a place to read or free', async () => {
  for (const copy of [
    { member: 1, sector: 256 },
    { member: 0, sector: 2 ** 39 },
  ]) {
    const members = new MemoryMembers(1, 1);
    const tree = await filledTree(members, 2_000);
    const root = tree.rootPointer;
    assert.ok(root !== null && root.level === 1);
    const forged = forge(members, root, (bytes) => {
      const child = decodePointer(bytes, pointerAt(bytes, 0));
      assert.ok(child !== null);
      encodePointer({ ...child, copies: [copy] }, bytes, pointerAt(bytes, 0));
    });
    const again = Tree.open(members.store(), EXTENTS, forged, tree.itemCount);
    await assert.rejects(
      async () => again.get(keyOf(1)),
      (error: unknown) => isStoreError(error, 'E_FORMAT'),
    );
    await assert.rejects(
      async () => again.put(keyOf(1), valueFor(2)),
      (error: unknown) => isStoreError(error, 'E_FORMAT'),
    );
  }
});

test('an open store judges the places in its pages by its own member table', async () => {
  const store = await makeStore(2);
  const catalog = await open(store);
  await put(catalog, 'k', 'v');
  const { storeUuid, rules } = { storeUuid: catalog.storeUuid, rules: catalog.pages.rules };
  const root = catalog.superblock.treeRoots[0];
  assert.ok(root !== null && root !== undefined);
  for (const copy of [
    { member: 2, sector: 256 },
    { member: 1, sector: (64 * MIB) / 4_096 },
  ]) {
    const child = { key: new Uint8Array(0), pointer: { ...root, copies: [copy] } };
    const bytes = encodeBranch([child], 1, { treeId: 0, birth: root.birth, storeUuid });
    const pointer = { ...root, level: 1, kind: 2, storedBytes: bytes.length, sum: crc64(bytes) };
    assert.throws(
      () => decodeCatalogPage(bytes, pointer, 0, rules),
      (error: unknown) => isStoreError(error, 'E_FORMAT'),
    );
  }
  await catalog.close();
});

test('a page of another tree or another store is E_FORMAT', async () => {
  const members = new MemoryMembers(1, 1);
  const tree = await filledTree(members, 10);
  const other = Tree.open(members.store(), 1, tree.rootPointer, tree.itemCount);
  await assert.rejects(
    async () => other.get(keyOf(1)),
    (error: unknown) => isStoreError(error, 'E_FORMAT'),
  );
  const foreign = members.store({ storeUuid: new Uint8Array(16).fill(9) });
  const elsewhere = Tree.open(foreign, EXTENTS, tree.rootPointer, tree.itemCount);
  await assert.rejects(
    async () => elsewhere.get(keyOf(1)),
    (error: unknown) => isStoreError(error, 'E_FORMAT'),
  );
});

test('a cache far smaller than the tree makes lookups slow, never endless, and stays in its bound', async () => {
  const members = new MemoryMembers(2, 2);
  const tree = await filledTree(members, 60_000);
  const again = reopen(members, tree, 0);
  const ids = Array.from({ length: 3_000 }, (_, i) => 1 + ((i * 7_919) % 60_000));
  const values = await Promise.all(ids.map((id) => again.get(keyOf(id))));
  for (const [i, id] of ids.entries()) assert.deepEqual(values[i], valueFor(id));
  assert.ok(again.pages.stats().cachedBytes <= 2 * 256 * 1_024, `${again.pages.stats().cachedBytes} bytes`);
  assert.ok(again.pages.stats().evictions > 0);
});

test('a thousand cold lookups in one turn are a few batches, not a thousand reads', async () => {
  const members = new MemoryMembers(2, 2);
  const again = reopen(members, await filledTree(members, 60_000));
  members.readBatches = 0;
  members.readPages = 0;
  await Promise.all(Array.from({ length: 1_000 }, (_, i) => again.get(keyOf(1 + i * 60))));
  assert.ok(members.readBatches <= 20, `${members.readBatches} batches`);
  assert.ok(members.readPages < 700, 'each page is read once however many wait for it');
});

test('a warm lookup makes no promise', async () => {
  const members = new MemoryMembers(1, 1);
  const tree = await filledTree(members, 20_000);
  for (let id = 1; id <= 20_000; id += 97) assert.ok(!(tree.get(keyOf(id)) instanceof Promise));
  assert.equal(tree.get(keyOf(0)), undefined);
});

test('the last item of a stretch is that of the range, across leaf borders, cold, warm and among edits', async () => {
  const members = new MemoryMembers(1, 1);
  const tree = await filledTree(members, 5_000);
  // Gaps wider than a leaf: the search then ends in a leaf that holds nothing below the bound.
  for (let id = 1_000; id < 1_800; id += 1) await tree.delete(keyOf(id));
  members.commit(tree, 2);
  const cold = reopen(members, tree);
  for (let id = 2_500; id < 2_900; id += 1) await tree.delete(keyOf(id));
  for (const reader of [cold, cold, tree]) {
    for (let below = 1; below <= 5_100; below += 53) {
      for (const from of [0, Math.max(0, below - 5), Math.max(0, below - 1_200), below]) {
        let expected: TreeItem | undefined;
        for await (const item of reader.range(keyOf(from), keyOf(below), { reverse: true })) {
          expected = item;
          break;
        }
        assert.deepEqual(await reader.lastItem(keyOf(from), keyOf(below)), expected, `[${from}, ${below})`);
      }
    }
  }
  const empty = Tree.open(members.store(), EXTENTS, null, 0);
  assert.equal(empty.lastItem(keyOf(0), keyOf(9)), undefined);
});

test('changes in flight at once on cold pages do not lose each other', async () => {
  const members = new MemoryMembers(2, 2);
  const tree = reopen(members, await filledTree(members, 20_000), 0);
  const work: (boolean | Promise<boolean>)[] = [];
  for (let i = 0; i < 4_000; i += 1) {
    const id = 1 + ((i * 7_919) % 25_000);
    work.push(i % 3 === 0 ? tree.delete(keyOf(id)) : tree.put(keyOf(id), valueFor(id + 1)));
  }
  await Promise.all(work);
  const model = new Map<number, number>();
  for (let id = 1; id <= 20_000; id += 1) model.set(id, id);
  for (let i = 0; i < 4_000; i += 1) {
    const id = 1 + ((i * 7_919) % 25_000);
    if (i % 3 === 0) model.delete(id);
    else model.set(id, id + 1);
  }
  members.commit(tree, 2);
  assert.equal(tree.itemCount, model.size);
  let seen = 0;
  for await (const item of tree.range(new Uint8Array(0), null)) {
    const id = new DataView(item.key.buffer, item.key.byteOffset).getUint32(4);
    assert.deepEqual(item.value, valueFor(model.get(id) as number));
    seen += 1;
  }
  assert.equal(seen, model.size);
});

test('a rolled back change leaves root, count, freed pages and sealed bytes as if it had never been', async () => {
  const members = new MemoryMembers(1, 1);
  const tree = await filledTree(members, 5_000);
  await tree.put(keyOf(6_000), valueFor(1));
  const savepoint = tree.beginEdit();
  const freedBefore = [...tree.freed];
  for (let id = 1; id < 3_000; id += 2) await tree.delete(keyOf(id));
  const inner = tree.beginEdit();
  for (let id = 10_000; id < 12_000; id += 1) await tree.put(keyOf(id), valueFor(id, 3_000));
  tree.rollback(inner);
  assert.equal(await tree.get(keyOf(10_000)), undefined);
  assert.equal(await tree.get(keyOf(1)), undefined);
  tree.rollback(savepoint);
  assert.equal(tree.root, savepoint.root);
  assert.equal(tree.itemCount, 5_001);
  assert.deepEqual([...tree.freed], freedBefore);
  const control = reopen(members, tree);
  await control.put(keyOf(6_000), valueFor(1));
  const sectors = (): PageSink => {
    let sector = 100_000;
    return { place: (bytes) => ({ copies: [{ member: 0, sector: (sector += bytes / 4_096) }] }) };
  };
  assert.deepEqual(tree.seal(sectors(), 2).writes, control.seal(sectors(), 2).writes);
});

test('a sink that runs out of addresses leaves the tree as it was', async () => {
  const members = new MemoryMembers(1, 1);
  const tree = await filledTree(members, 5_000);
  for (let id = 1; id < 5_000; id += 100) await tree.put(keyOf(id), valueFor(id, 5_000));
  let left = tree.dirtyPageCount() - 1;
  const empty: PageSink = {
    place: (bytes, kind, level) => {
      if (left === 0) throw new Error('no address left');
      left -= 1;
      return members.sink.place(bytes, kind, level);
    },
  };
  assert.throws(() => tree.seal(empty, 2), /no address left/);
  await tree.put(keyOf(1), valueFor(2));
  members.commit(tree, 2);
  assert.deepEqual(await tree.get(keyOf(1)), valueFor(2));
  assert.deepEqual(await reopen(members, tree).get(keyOf(101)), valueFor(101, 5_000));
});

test('a sealed tree refuses edits until it is adopted or the seal is abandoned', async () => {
  const members = new MemoryMembers(1, 1);
  const tree = await filledTree(members, 10);
  await tree.put(keyOf(11), valueFor(11));
  tree.seal(members.sink, 2);
  assert.throws(() => tree.put(keyOf(12), valueFor(12)), /sealed/);
  tree.abandonSeal();
  await tree.put(keyOf(12), valueFor(12));
  assert.equal(tree.itemCount, 12);
});

test('a view does not move while the tree is changed, sealed and committed', async () => {
  const members = new MemoryMembers(1, 1);
  const tree = await filledTree(members, 3_000);
  const view = tree.snapshotView();
  for (let id = 1; id <= 3_000; id += 1) await tree.delete(keyOf(id));
  assert.equal(tree.root, null);
  assert.deepEqual(await view.get(keyOf(7)), valueFor(7));
  members.commit(tree, 2);
  assert.equal(tree.rootPointer, null);
  let count = 0;
  for await (const item of view.range(keyOf(0), null)) count += item.value.byteLength > 0 ? 1 : 0;
  assert.equal(count, 3_000);
});

test('emptying a tree in random order frees every page exactly once', async () => {
  const members = new MemoryMembers(1, 1);
  const tree = await filledTree(members, 30_000);
  const before = (await walk(tree)).map(({ pointer }) => pointer.copies[0]?.sector);
  for (let i = 0; i < 30_000; i += 1)
    assert.equal(await tree.delete(keyOf(1 + ((i * 7_919) % 30_000))), true);
  const sealed = members.commit(tree, 2);
  assert.equal(sealed.root, null);
  assert.equal(sealed.writes.length, 0);
  assert.deepEqual(sealed.freed.map((pointer) => pointer.copies[0]?.sector).sort(), before.sort());
});

test('appended ids fill pages, random ones keep them over half full', async () => {
  const members = new MemoryMembers(1, 1);
  const fill = async (tree: Tree): Promise<number> => {
    const pages = (await walk(tree)).filter((page) => page.level === 0);
    const used = pages.reduce((sum, page) => sum + (page.page?.usedBytes ?? 0), 0);
    return used / (pages.length * 8_192);
  };
  assert.ok((await fill(await filledTree(members, 30_000))) > 0.97);
  const random = Tree.open(members.store(), EXTENTS, null, 0);
  for (let i = 0; i < 30_000; i += 1) await random.put(keyOf(1 + ((i * 7_919) % 30_011)), valueFor(i));
  members.commit(random, 1);
  assert.ok((await fill(random)) > 0.6);
});

test('keys appended to groups that others follow fill pages too', async () => {
  const members = new MemoryMembers(1, 1);
  const tree = Tree.open(members.store(), EXTENTS, null, 0);
  const groupKey = (group: number, kind: number, id: number): Uint8Array => {
    const key = new Uint8Array(16);
    key.set([group, kind]);
    new DataView(key.buffer).setUint32(12, id);
    return key;
  };
  // As runs have it: long items at the end of one kind, short ones at the end of the next, runs in random order.
  let itemBytes = 0;
  for (let id = 0; id < 6_000; id += 1) {
    const group = (id * 7_919) % 10;
    await tree.put(groupKey(group, 3, id), valueFor(id, 200));
    await tree.put(groupKey(group, 4, id), new Uint8Array(0));
    itemBytes += 12 + 16 + 200 + 12 + 16;
  }
  members.commit(tree, 1);
  const pages = (await walk(tree)).filter((page) => page.kind === 1);
  const storedBytes = pages.reduce((sum, page) => sum + page.pointer.storedBytes, 0);
  assert.ok(storedBytes < itemBytes / 0.8, `${itemBytes} bytes of items in ${storedBytes} bytes of leaves`);
});

test('values around the large limit and the piece size come back whole after reopening', async () => {
  const members = new MemoryMembers(2, 2);
  const lengths = [0, 1, 2_047, 2_048, 2_049, 245_759, 245_760, 245_761, 491_520, 5_000_000];
  const tree = Tree.open(members.store(), EXTENTS, null, 0);
  for (const [id, length] of lengths.entries()) await tree.put(keyOf(id + 1), valueFor(id + 3, length));
  const check = async (reader: Tree): Promise<void> => {
    for (const [id, length] of lengths.entries()) {
      assert.deepEqual(await reader.get(keyOf(id + 1)), valueFor(id + 3, length));
    }
  };
  await check(tree);
  members.commit(tree, 1);
  const again = reopen(members, tree);
  await check(again);
  const kinds = (await walk(again)).map((page) => page.kind);
  assert.equal(kinds.filter((kind) => kind === 3).length, 6);
  assert.equal(kinds.filter((kind) => kind === 4).length, 1 + 1 + 1 + 2 + 2 + 21);
});

test('replacing and deleting large values frees their pieces, also when nothing is cached', async () => {
  const members = new MemoryMembers(1, 1);
  const tree = Tree.open(members.store(), EXTENTS, null, 0);
  for (let id = 1; id <= 6; id += 1) await tree.put(keyOf(id), valueFor(id, 600_000));
  members.commit(tree, 1);
  const again = reopen(members, tree, 0);
  await again.put(keyOf(1), valueFor(1, 700_000));
  await again.put(keyOf(2), valueFor(2));
  await Promise.all([3, 4, 5, 6].map((id) => again.delete(keyOf(id))));
  const sealed = members.commit(again, 2);
  assert.equal(sealed.freed.filter((pointer) => pointer.kind === 3).length, 6);
  assert.equal(sealed.freed.filter((pointer) => pointer.kind === 4).length, 18);
  assert.equal((await walk(again)).filter((page) => page.kind === 4).length, 3);
});

test('what the caller does with its arrays after put does not reach the tree', async () => {
  const members = new MemoryMembers(1, 1);
  const tree = Tree.open(members.store(), EXTENTS, null, 0);
  for (const length of [10, 300_000]) {
    const key = keyOf(length);
    const value = valueFor(5, length);
    await tree.put(key, value);
    value.fill(0);
    key.fill(255);
    assert.deepEqual(await tree.get(keyOf(length)), valueFor(5, length));
  }
});

test('a range survives deletion of what lies ahead and behind it, in both directions', async () => {
  const members = new MemoryMembers(1, 1);
  for (const reverse of [false, true]) {
    const tree = await filledTree(members, 5_000);
    let last = reverse ? Infinity : 0;
    let seen = 0;
    for await (const item of tree.items(keyOf(0), null, { reverse })) {
      const id = new DataView(item.key.buffer, item.key.byteOffset).getUint32(4);
      assert.ok(reverse ? id < last : id > last, 'each key once, in order');
      last = id;
      seen += 1;
      if (seen % 50 === 0) for (let d = -200; d <= 200; d += 3) await tree.delete(keyOf(Math.max(0, id + d)));
    }
    assert.ok(seen > 1_000 && seen < 5_000);
  }
});

test('a cold range reads ahead in batches and an abort rejects with the reason', async () => {
  const members = new MemoryMembers(2, 2);
  const again = reopen(members, await filledTree(members, 60_000));
  members.readBatches = 0;
  members.readPages = 0;
  let count = 0;
  for await (const item of again.range(keyOf(0), null)) count += item.value.byteLength > 0 ? 1 : 0;
  assert.equal(count, 60_000);
  const { readPages, readBatches } = members;
  assert.ok(readPages / readBatches > 8, `${readPages} pages in ${readBatches} batches`);
  const controller = new AbortController();
  const reason = new Error('enough');
  await assert.rejects(
    async () => {
      for await (const item of again.range(keyOf(0), null, { signal: controller.signal })) {
        if (item.key[7] === 200) controller.abort(reason);
      }
    },
    (error: unknown) => error === reason,
  );
});

test('an LZ4 block that lies about its length is E_FORMAT and allocates nothing large', () => {
  const raw = new Uint8Array(200_000).map((_, i) => i & 15);
  const block = compressBlock(raw);
  assert.ok(block !== null && block.byteLength < 2_000);
  const back = new Uint8Array(raw.byteLength);
  decompressBlockInto(block, back);
  assert.deepEqual(back, raw);
  for (const wrong of [1, 199_999, 200_001]) {
    assert.throws(() => decompressBlockInto(block, new Uint8Array(wrong)), isMalformed);
  }
  assert.throws(() => decompressBlockInto(block.subarray(0, 50), new Uint8Array(200_000)), isMalformed);
  let state = 1;
  const noise = new Uint8Array(5_000).map(() => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 24;
  });
  assert.equal(compressBlock(noise), null);
});
