// The tree against a sorted map: random puts, deletes, rollbacks, commits and reopens.
//
// Invariants
//   1. After every step the tree's answers equal the model's; after every commit so do those of a
//      freshly opened tree, of the view, and of earlier views (they never move).
//   2. What a commit frees and what it writes account for every page exactly: reachable pages =
//      reachable before - freed + written.
//   3. INGOT_FUZZ_RUNS sets the number of runs; a failure prints seed and path.

import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Tree } from '../engine/btree.js';
import type { Savepoint, TreeOptions, TreeView } from '../engine/btree.js';
import type { PagePointer } from '../format/pointer.js';
import type { PageStore } from '../engine/page_store.js';
import { crc64 } from '../format/checksum.js';
import { isStoreError } from '../format/errors.js';
import { MemoryMembers } from '../test/unit/btree_memory_io.js';

const RUNS = Number(process.env['INGOT_FUZZ_RUNS'] ?? 40);

type Step =
  | { readonly op: 'put'; readonly key: string; readonly size: number; readonly fill: number }
  | { readonly op: 'delete'; readonly pick: number }
  | { readonly op: 'deleteRange'; readonly pick: number; readonly count: number }
  | { readonly op: 'append'; readonly count: number }
  | { readonly op: 'begin' }
  | { readonly op: 'rollback' }
  | { readonly op: 'commit' }
  | { readonly op: 'reopen' }
  | { readonly op: 'dropCache' };

/** Latin-1 strings sort as their bytes do. */
const toBytes = (key: string): Uint8Array => Uint8Array.from(Buffer.from(key, 'latin1'));
const toKey = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');

const keyArbitrary = fc.oneof(
  fc.integer({ min: 0, max: 400 }).map((n) => `k${String(n).padStart(4, '0')}`),
  fc.string({
    minLength: 1,
    maxLength: 3,
    unit: fc.integer({ min: 0, max: 255 }).map((c) => String.fromCharCode(c)),
  }),
  // Boundary lengths and long equal prefixes, where separators are long.
  fc
    .tuple(fc.constantFrom(1, 2, 1_022, 1_023, 1_024), fc.nat(255), fc.nat(255))
    .map(([length, last, first]) =>
      length < 3
        ? String.fromCharCode(first).repeat(length)
        : 'p'.repeat(length - 2) + String.fromCharCode(first) + String.fromCharCode(last),
    ),
);
const sizeArbitrary = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 0, max: 200 }) },
  { weight: 3, arbitrary: fc.constantFrom(2_047, 2_048, 2_049, 4_096) },
  { weight: 1, arbitrary: fc.constantFrom(245_759, 245_760, 245_761, 500_000) },
);
const stepArbitrary: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 20,
    arbitrary: fc.record({
      op: fc.constant('put' as const),
      key: keyArbitrary,
      size: sizeArbitrary,
      fill: fc.nat(255),
    }),
  },
  { weight: 8, arbitrary: fc.record({ op: fc.constant('delete' as const), pick: fc.nat() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('deleteRange' as const),
      pick: fc.nat(),
      count: fc.integer({ min: 1, max: 300 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('append' as const), count: fc.integer({ min: 1, max: 300 }) }),
  },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('begin' as const) }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('rollback' as const) }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('commit' as const) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('reopen' as const) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('dropCache' as const) }) },
);

type Model = Map<string, Uint8Array>;

function addressOf(pointer: PagePointer): string {
  return pointer.copies.map((copy) => `${copy.member}:${copy.sector}`).join(' ');
}

function sorted(model: Model): string[] {
  return [...model.keys()].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

function fillValue(size: number, fill: number): Uint8Array {
  const value = new Uint8Array(size);
  // Half of the values compress, half do not.
  let state = fill + 1;
  for (let i = 0; i < size; i += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    value[i] = fill % 2 === 0 ? fill : state >>> 16;
  }
  return value;
}

class Subject {
  readonly members = new MemoryMembers(3, 2);
  readonly options: TreeOptions;
  pages: PageStore;
  tree: Tree;
  model: Model = new Map();
  birth = 0;
  readonly savepoints: { savepoint: Savepoint; model: Model }[] = [];
  lastView: { view: TreeView; model: Model } | null = null;
  reachable = new Set<string>();
  appended = 0;

  constructor(options: TreeOptions) {
    this.options = options;
    this.pages = this.members.store({ cacheBytes: 0 });
    this.tree = Tree.open(this.pages, 1, null, 0, options);
  }

  async apply(step: Step): Promise<void> {
    switch (step.op) {
      case 'put':
        await this.put(step.key, fillValue(step.size, step.fill));
        break;
      case 'append':
        for (let i = 0; i < step.count; i += 1) {
          this.appended += 1;
          await this.put(`v${String(this.appended).padStart(8, '0')}`, fillValue(60, i));
        }
        break;
      case 'delete':
        await this.deleteSome(step.pick, 1);
        break;
      case 'deleteRange':
        await this.deleteSome(step.pick, step.count);
        break;
      case 'begin':
        this.savepoints.push({ savepoint: this.tree.beginEdit(), model: new Map(this.model) });
        break;
      case 'rollback': {
        const last = this.savepoints.pop();
        if (last === undefined) return;
        this.tree.rollback(last.savepoint);
        this.model = last.model;
        break;
      }
      case 'commit':
        await this.commit();
        break;
      case 'reopen': {
        await this.commit();
        this.pages = this.members.store({ cacheBytes: 0 });
        this.tree = Tree.open(this.pages, 1, this.tree.rootPointer, this.tree.itemCount, this.options);
        break;
      }
      case 'dropCache':
        this.pages.dropCache();
        break;
    }
    assert.equal(this.tree.itemCount, this.model.size);
  }

  async put(key: string, value: Uint8Array): Promise<void> {
    const isNew = await this.tree.put(toBytes(key), value);
    assert.equal(isNew, !this.model.has(key));
    this.model.set(key, value);
  }

  async deleteSome(pick: number, count: number): Promise<void> {
    const keys = sorted(this.model);
    if (keys.length === 0) {
      assert.equal(await this.tree.delete(toBytes('nothing')), false);
      return;
    }
    const first = pick % keys.length;
    for (const key of keys.slice(first, first + count)) {
      assert.equal(await this.tree.delete(toBytes(key)), true);
      this.model.delete(key);
    }
  }

  async commit(): Promise<void> {
    this.savepoints.length = 0;
    this.birth += 1;
    const plan = this.tree.sealPlan();
    const sealed = this.tree.seal(this.members.sink, this.birth);
    const placed = sealed.writes.map(({ pointer: { storedBytes, kind, level } }) => ({
      storedBytes,
      kind,
      level,
    }));
    assert.deepEqual(placed, plan);
    this.members.write(sealed.writes);
    this.tree.adopt(sealed);
    assert.equal(this.tree.isDirty, false);
    const reachable = new Set<string>();
    for await (const { pointer } of this.tree.walkPages()) reachable.add(addressOf(pointer));
    const expected = new Set(this.reachable);
    for (const pointer of sealed.freed) {
      assert.ok(expected.delete(addressOf(pointer)), 'freed once, and reachable before');
    }
    for (const { pointer } of sealed.writes) expected.add(addressOf(pointer));
    assert.deepEqual([...reachable].sort(), [...expected].sort());
    this.reachable = reachable;
    if (this.lastView !== null) await checkReader(this.lastView.view, this.lastView.model, this.birth);
    this.lastView = { view: this.tree.snapshotView(), model: new Map(this.model) };
  }
}

async function checkReader(reader: Tree | TreeView, model: Model, seed: number): Promise<void> {
  const keys = sorted(model);
  const forwards: string[] = [];
  for await (const item of reader.range(new Uint8Array(0), null)) {
    forwards.push(toKey(item.key));
    assert.deepEqual(item.value, model.get(toKey(item.key)));
  }
  assert.deepEqual(forwards, keys);
  if (keys.length > 0) {
    const from = keys[(seed * 7) % keys.length] as string;
    const to = keys[(seed * 13) % keys.length] as string;
    const backwards: string[] = [];
    const items = reader.items(toBytes(from), toBytes(to), { reverse: true });
    for await (const item of items) backwards.push(toKey(item.key));
    assert.deepEqual(backwards, keys.filter((key) => key >= from && key < to).reverse());
    for (let i = 0; i < 5; i += 1) {
      const key = keys[(seed * 31 + i * 17) % keys.length] as string;
      assert.deepEqual(await reader.get(toBytes(key)), model.get(key));
      const absent = `${key}\u0000`.slice(0, 1_024);
      if (!model.has(absent)) assert.equal(await reader.get(toBytes(absent)), undefined);
    }
  }
}

const TREE_OPTIONS: readonly TreeOptions[] = [
  {},
  { leafBytes: 4_096, branchBytes: 4_096 },
  { leafBytes: 600, branchBytes: 800 },
];
for (const options of TREE_OPTIONS) {
  test(`a tree never differs from a sorted map (limits ${JSON.stringify(options)})`, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(stepArbitrary, { minLength: 1, maxLength: 120, size: 'max' }),
        async (steps) => {
          const subject = new Subject(options);
          for (const step of steps) await subject.apply(step);
          await checkReader(subject.tree, subject.model, steps.length);
          await subject.commit();
          await checkReader(subject.tree.snapshotView(), subject.model, steps.length);
        },
      ),
      { numRuns: RUNS },
    );
  });
}

/** Puts a page's new sum wherever its old one stands, and so on up to the root pointer. */
function fixSums(members: MemoryMembers, sector: number, oldSum: bigint, root: PagePointer): PagePointer {
  const pages = members.pages(0);
  let fixed = root;
  const work = [{ sector, oldSum }];
  for (let next = work.pop(); next !== undefined; next = work.pop()) {
    const sum = crc64(pages.get(next.sector) as Uint8Array);
    if (fixed.sum === next.oldSum) fixed = { ...fixed, sum };
    const pattern = Buffer.alloc(8);
    pattern.writeBigUInt64LE(next.oldSum);
    for (const [parentSector, bytes] of pages) {
      const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const at = parentSector === next.sector ? -1 : buffer.indexOf(pattern);
      if (at < 0) continue;
      work.push({ sector: parentSector, oldSum: crc64(bytes) });
      buffer.writeBigUInt64LE(sum, at);
    }
  }
  return fixed;
}

const keyOf = (id: number): Uint8Array => toBytes(`k${String(id).padStart(4, '0')}`);

async function exercise(tree: Tree, members: MemoryMembers): Promise<void> {
  const tolerate = async (work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      assert.ok(isStoreError(error), `damage gives a StoreError, not ${String(error)}`);
    }
  };
  for (let id = 0; id < 400; id += 37) await tolerate(async () => tree.get(keyOf(id)));
  await tolerate(async () => {
    for await (const item of tree.range(new Uint8Array(0), null)) assert.ok(item.key.length > 0);
  });
  await tolerate(async () => {
    for await (const page of tree.walkPages()) assert.ok(page.kind > 0);
  });
  for (let id = 0; id < 400; id += 3) await tolerate(async () => tree.delete(keyOf(id)));
  for (let id = 1; id < 400; id += 5) await tolerate(async () => tree.put(keyOf(id), fillValue(id * 9, id)));
  await tolerate(async () => members.commit(tree, 2));
}

test('damage under right sums gives a typed error or an answer, never a crash, hang or failed assertion', async () => {
  const damage = fc.record({
    page: fc.nat(),
    offsets: fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }),
    inHeader: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(damage, async ({ page, offsets, inHeader }) => {
      const members = new MemoryMembers(1, 1);
      const limits = { leafBytes: 1_200, branchBytes: 1_600 };
      const tree = Tree.open(members.store(), 1, null, 0, limits);
      for (let id = 0; id < 400; id += 1) {
        await tree.put(keyOf(id), fillValue(id % 40 === 0 ? 3_000 : id % 50, id));
      }
      members.commit(tree, 1);
      const sectors = [...members.pages(0).keys()];
      const sector = sectors[page % sectors.length] as number;
      const bytes = members.pages(0).get(sector) as Uint8Array;
      const oldSum = crc64(bytes);
      const usedBytes = new DataView(bytes.buffer, bytes.byteOffset).getUint32(20, true);
      for (const [offset, value] of offsets) bytes[offset % (inHeader ? 128 : usedBytes)] = value;
      const root = fixSums(members, sector, oldSum, tree.rootPointer as PagePointer);
      await exercise(Tree.open(members.store(), 1, root, tree.itemCount, limits), members);
    }),
    {
      numRuns: RUNS * 2,
      // A child pointer that names a member the store does not have: it was read, and could be freed, there.
      examples: [[{ page: 356_685_413, offsets: [[1_448_784_254, 1]], inHeader: false }]],
    },
  );
});
