// The transaction API against a plain Map: any sequence of operations gives the same visible state.
//
// Operations are data, drawn and shrunk by fast-check. After each sequence the store is compared with the
// model, reopened, compared again, and checked by fsck. INGOT_FUZZ_RUNS sets how many sequences are tried.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isStoreError } from '../format/errors.js';
import type { Transaction } from '../engine/transaction.js';
import { Prng } from '../test/sim/prng.js';
import { collect, contents, fsckFindings, makeRig, openRig, type Rig } from '../test/unit/store_harness.js';

const RUNS = Number(process.env['INGOT_FUZZ_RUNS'] ?? 40);
const RUN_NAMES = ['a', 'b/c'] as const;
const TAG_NAMES = ['best', 'latest', 'x'] as const;
/** Sizes around every border: inline, shared chunk, segment, chunk, several chunks, sum leaf. */
const SIZES = [
  0, 1, 2048, 2049, 4096, 5000, 16_383, 16_384, 16_385, 65_536, 65_537, 200_000, 700_000,
] as const;
/** Lengths of trained tensors: one shared chunk, a chunk and a little, several chunks. */
const TRAINED_SIZES = [40_000, 65_538, 262_146, 600_000] as const;
const SLOTS = 3;

type Op =
  | {
      readonly kind: 'begin';
      readonly slot: number;
      readonly run: number;
      readonly step: number | null;
      readonly base: boolean;
      readonly delta: boolean;
      readonly redundancy: 1 | 2;
    }
  | {
      readonly kind: 'put';
      readonly slot: number;
      readonly name: number;
      readonly size: number;
      readonly blob: boolean;
      readonly wait: boolean;
      /** The bytes of that name in the base, some or none of them changed, when there are such. */
      readonly like: boolean;
    }
  | { readonly kind: 'link'; readonly slot: number; readonly name: number; readonly from: number }
  | { readonly kind: 'commit'; readonly slot: number; readonly tag: number | null }
  | { readonly kind: 'abort'; readonly slot: number }
  | { readonly kind: 'tag'; readonly version: number; readonly tag: number; readonly expect: number | null }
  | { readonly kind: 'untag'; readonly run: number; readonly tag: number }
  | { readonly kind: 'remove'; readonly version: number; readonly force: boolean }
  | { readonly kind: 'read'; readonly version: number; readonly from: number; readonly length: number }
  /** A version of weights, or one that is the newest after a step of training, stored against it. */
  | { readonly kind: 'train'; readonly run: number; readonly step: number; readonly size: number }
  | { readonly kind: 'reopen' };

const slot = fc.nat(SLOTS - 1);
const opArbitrary: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('begin' as const),
      slot,
      run: fc.nat(1),
      step: fc.option(fc.nat(3)),
      base: fc.boolean(),
      delta: fc.boolean(),
      redundancy: fc.constantFrom(1 as const, 2 as const),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('put' as const),
      slot,
      name: fc.nat(5),
      size: fc.nat(SIZES.length - 1),
      blob: fc.boolean(),
      wait: fc.boolean(),
      like: fc.boolean(),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('link' as const), slot, name: fc.nat(5), from: fc.nat(5) }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant('commit' as const), slot, tag: fc.option(fc.nat(2)) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('abort' as const), slot }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('tag' as const),
      version: fc.nat(9),
      tag: fc.nat(2),
      expect: fc.option(fc.nat(9)),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('untag' as const), run: fc.nat(1), tag: fc.nat(2) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('remove' as const), version: fc.nat(9), force: fc.boolean() }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('read' as const),
      version: fc.nat(9),
      from: fc.nat(1000),
      length: fc.nat(100_000),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('train' as const),
      run: fc.nat(1),
      step: fc.nat(1000),
      size: fc.nat(TRAINED_SIZES.length - 1),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('reopen' as const) }) },
);

interface ModelVersion {
  readonly id: string;
  readonly run: string;
  readonly step: number | null;
  readonly objects: ReadonlyMap<string, Uint8Array>;
}
interface OpenTransaction {
  readonly tx: Transaction;
  readonly run: string;
  readonly step: number | null;
  readonly base: ModelVersion | null;
  readonly delta: boolean;
  readonly objects: Map<string, Uint8Array>;
  readonly linked: Set<string>;
  readonly pending: Promise<unknown>[];
}

/** The store as a Map, and the real one beside it. */
class Pair {
  readonly rig: Rig;
  readonly versions: ModelVersion[] = [];
  readonly tags = new Map<string, ModelVersion>();
  readonly open: (OpenTransaction | null)[] = Array.from({ length: SLOTS }, () => null);
  #seed = 0;

  constructor(rig: Rig) {
    this.rig = rig;
  }

  async apply(op: Op): Promise<void> {
    switch (op.kind) {
      case 'begin':
        return this.#begin(op);
      case 'put':
        return this.#put(op);
      case 'link':
        return this.#link(op);
      case 'commit':
        return this.#commit(op);
      case 'abort':
        return this.#abort(op.slot);
      case 'tag':
        return this.#tag(op);
      case 'untag':
        return this.#untag(op);
      case 'remove':
        return this.#remove(op);
      case 'read':
        return this.#read(op);
      case 'train':
        return this.#train(op);
      case 'reopen':
        return this.#reopen();
    }
  }

  #newest(run: string): ModelVersion | null {
    return this.versions.filter((version) => version.run === run).at(-1) ?? null;
  }
  #at(index: number): ModelVersion | null {
    return this.versions.length === 0 ? null : (this.versions[index % this.versions.length] ?? null);
  }

  async #begin(op: Op & { kind: 'begin' }): Promise<void> {
    if (this.open[op.slot] !== null) return;
    const run = RUN_NAMES[op.run] ?? 'a';
    const base = op.base ? this.#newest(run) : null;
    const tx = await this.rig.store.begin(run, {
      redundancy: op.redundancy,
      ...(op.step === null ? {} : { step: op.step }),
      ...(base === null ? {} : { base: base.id, delta: op.delta }),
    });
    const delta = base !== null && op.delta;
    const sets = { objects: new Map(), linked: new Set<string>(), pending: [] };
    this.open[op.slot] = { tx, run, step: op.step, base, delta, ...sets };
  }

  async #put(op: Op & { kind: 'put' }): Promise<void> {
    await this.#fill(op.slot, op.name);
    const open = this.open[op.slot];
    if (open === null || open === undefined) return;
    const name = `n${op.name}`;
    const key = `${op.blob ? 'blob' : 'tensor'} ${name}`;
    this.#seed += 1;
    const before = op.blob || !op.like ? undefined : open.base?.objects.get(key);
    const prng = new Prng(this.#seed);
    // Every third is left as it was, and so linked.
    const changed = before === undefined || op.size % 3 === 0 ? before : prng.stepped(before, 40);
    // Floats are like weights, so that differences to others, equal or not, are worth a thought.
    const isFloat = op.name % 2 === 0;
    const size = SIZES[op.size] ?? 0;
    const fresh = isFloat && !op.blob ? prng.weights(size) : contents(this.#seed, size);
    const bytes = changed ?? fresh;
    const meta = { dtype: isFloat ? ('F8_E4M3' as const) : ('I8' as const), shape: [bytes.length] };
    const putting = op.blob ? open.tx.putBlob(name, bytes.slice()) : open.tx.put(name, bytes.slice(), meta);
    if (open.objects.has(key)) {
      await assert.rejects(putting, { code: 'E_EXISTS' });
      return;
    }
    open.objects.set(key, bytes);
    const ended = putting.catch((error: unknown) => this.#expectGoneBase(open, error));
    if (op.wait) await ended;
    else open.pending.push(ended);
  }

  /** What is stored against a base that was removed since may fail, now or at the commit: E_CONFLICT, nothing else. */
  #expectGoneBase(open: OpenTransaction, error: unknown): void {
    const isGone = open.delta && open.base !== null && !this.versions.includes(open.base);
    if (!isGone || !isStoreError(error, 'E_CONFLICT')) throw error;
  }

  /** Puts and links into an empty slot begin a transaction there, mostly on the newest version of the run. */
  async #fill(index: number, choice: number): Promise<void> {
    if (this.open[index] !== null) return;
    const redundancy = choice % 3 === 0 ? 1 : 2;
    await this.#begin({
      kind: 'begin',
      slot: index,
      run: choice % 2,
      step: choice,
      base: choice !== 5,
      delta: choice !== 4,
      redundancy,
    });
  }

  async #link(op: Op & { kind: 'link' }): Promise<void> {
    await this.#fill(op.slot, op.name);
    const open = this.open[op.slot];
    if (open === null || open === undefined || open.base === null) return;
    const key = `tensor n${op.name}`;
    const names = [...open.base.objects.keys()].filter((each) => each.startsWith('tensor '));
    // Mostly a tensor that is there; sometimes a name that is not.
    const from = op.from === 5 ? 'tensor n9' : (names[op.from % Math.max(names.length, 1)] ?? 'tensor n9');
    const bytes = open.base.objects.get(from);
    const linking = open.tx.link(`n${op.name}`, from.slice(7));
    if (bytes === undefined) await assert.rejects(linking, { code: 'E_NOT_FOUND' });
    else if (open.objects.has(key)) await assert.rejects(linking, { code: 'E_EXISTS' });
    else {
      await linking;
      open.objects.set(key, bytes);
      if (bytes.length > 2048) open.linked.add(key);
    }
  }

  async #commit(op: Op & { kind: 'commit' }): Promise<void> {
    const open = this.open[op.slot];
    if (open === null || open === undefined) return;
    this.open[op.slot] = null;
    const tag = op.tag === null ? null : (TAG_NAMES[op.tag] ?? null);
    const committing = open.tx.commit(tag === null ? {} : { tags: [tag] });
    const gone =
      open.linked.size > 0 &&
      open.base !== null &&
      !this.versions.includes(open.base) &&
      !(await this.#sharedElsewhere(open));
    // Differences keep the extents of a removed base, so that links to them hold: that the model does not follow.
    const mayLiveOn = this.rig.world.streams.deltas > 0;
    if (gone && !mayLiveOn) {
      await assert.rejects(committing, { code: 'E_CONFLICT' });
      return;
    }
    const made = await committing.catch((error: unknown) => {
      if (gone && isStoreError(error, 'E_CONFLICT')) return undefined;
      return this.#expectGoneBase(open, error);
    });
    if (made === undefined) return;
    const version: ModelVersion = { id: made.id, run: open.run, step: open.step, objects: open.objects };
    this.versions.push(version);
    this.tags.set(`${open.run}@latest`, version);
    if (tag !== null) this.tags.set(`${open.run}@${tag}`, version);
    await Promise.all(open.pending);
  }

  /** Linked extents may live on through another version that linked them: then the commit succeeds. */
  async #sharedElsewhere(open: OpenTransaction): Promise<boolean> {
    const wanted = [...open.linked].map((key) => open.objects.get(key));
    const alive = (bytes: Uint8Array | undefined): boolean =>
      this.versions.some((version) => [...version.objects.values()].some((each) => each === bytes));
    return wanted.every(alive);
  }

  async #train(op: Op & { kind: 'train' }): Promise<void> {
    const run = RUN_NAMES[op.run] ?? 'a';
    const newest = this.#newest(run);
    const base = newest?.objects.has('tensor w0') === true ? newest : null;
    const tx = await this.rig.store.begin(run, {
      codec: 'auto',
      ...(base === null ? {} : { base: base.id, delta: true }),
    });
    const objects = new Map<string, Uint8Array>();
    for (const [index, name] of ['w0', 'w1'].entries()) {
      const before = base?.objects.get(`tensor ${name}`);
      const length = TRAINED_SIZES[(op.size + index) % TRAINED_SIZES.length] ?? 40_000;
      const bytes =
        before === undefined ? new Prng(op.step).weights(length) : new Prng(op.step).stepped(before, 60);
      await tx.put(name, bytes.slice(), { dtype: 'BF16', shape: [bytes.length / 2] });
      objects.set(`tensor ${name}`, bytes);
    }
    const made = await tx.commit();
    const version: ModelVersion = { id: made.id, run, step: null, objects };
    this.versions.push(version);
    this.tags.set(`${run}@latest`, version);
  }

  async #abort(index: number): Promise<void> {
    const open = this.open[index];
    this.open[index] = null;
    await open?.tx.abort();
    await Promise.allSettled(open?.pending ?? []);
  }

  async #tag(op: Op & { kind: 'tag' }): Promise<void> {
    const version = this.#at(op.version);
    const tag = TAG_NAMES[op.tag] ?? 'x';
    if (version === null) return;
    const key = `${version.run}@${tag}`;
    const expected = op.expect === null ? undefined : this.#at(op.expect);
    const tagging = this.rig.store.tag(
      version.id,
      tag,
      expected === undefined ? {} : { expect: expected?.id ?? null },
    );
    if (expected !== undefined && this.tags.get(key) !== (expected ?? undefined)) {
      await assert.rejects(tagging, { code: 'E_CONFLICT' });
      return;
    }
    await tagging;
    this.tags.set(key, version);
  }

  async #untag(op: Op & { kind: 'untag' }): Promise<void> {
    const run = RUN_NAMES[op.run] ?? 'a';
    const tag = TAG_NAMES[op.tag] ?? 'x';
    const untagging = this.rig.store.untag(run, tag);
    if (tag === 'latest') await assert.rejects(untagging, { code: 'E_USAGE' });
    else if (!this.tags.delete(`${run}@${tag}`)) await assert.rejects(untagging, { code: 'E_NOT_FOUND' });
    else await untagging;
  }

  async #remove(op: Op & { kind: 'remove' }): Promise<void> {
    const version = this.#at(op.version);
    if (version === null) return;
    const tagged = [...this.tags].filter(([key, target]) => target === version && !key.endsWith('@latest'));
    const removing = this.rig.store.remove(version.id, { force: op.force });
    if (tagged.length > 0 && !op.force) {
      await assert.rejects(removing, { code: 'E_CONFLICT' });
      return;
    }
    await removing;
    this.versions.splice(this.versions.indexOf(version), 1);
    for (const [key] of tagged) this.tags.delete(key);
    const newest = this.#newest(version.run);
    const latest = `${version.run}@latest`;
    if (newest === null) this.tags.delete(latest);
    else if (this.tags.get(latest) === version) this.tags.set(latest, newest);
  }

  async #read(op: Op & { kind: 'read' }): Promise<void> {
    const model = this.#at(op.version);
    if (model === null) return;
    const version = await this.rig.store.get(model.id);
    for (const [key, bytes] of model.objects) {
      if (!key.startsWith('tensor ')) continue;
      const offset = Math.min(op.from * 97, bytes.length);
      const length = Math.min(op.length, bytes.length - offset);
      const part = new Uint8Array(length);
      await version.tensor(key.slice(7)).readInto(part, { offset, length });
      assert.deepEqual(part, bytes.slice(offset, offset + length));
    }
  }

  async #reopen(): Promise<void> {
    const open = this.open.splice(0, SLOTS, null, null, null);
    await this.rig.store.close();
    for (const each of open) await Promise.allSettled(each?.pending ?? []);
    this.rig.store = await openRig(this.rig.world, this.rig.io, this.rig.paths, { mode: 'rw' });
  }

  async compare(): Promise<void> {
    const listed = await collect(this.rig.store.list());
    assert.deepEqual(
      listed.map((version) => version.id).sort(),
      this.versions.map((version) => version.id).sort(),
    );
    for (const model of this.versions) {
      const version = await this.rig.store.get(model.id);
      const tags = [...this.tags]
        .filter(([, target]) => target === model)
        .map(([key]) => key.slice(key.indexOf('@') + 1));
      assert.deepEqual(
        [version.run, version.step, [...version.tags].sort()],
        [model.run, model.step, tags.sort()],
      );
      const names = [
        ...version.names.map((name) => `tensor ${name}`),
        ...version.blobNames.map((name) => `blob ${name}`),
      ];
      assert.deepEqual(names.sort(), [...model.objects.keys()].sort());
      const landed = new Map<string, Uint8Array>();
      for await (const tensor of version.load((each) => {
        const bytes = new Uint8Array(each.byteLength);
        landed.set(`tensor ${each.name}`, bytes);
        return bytes;
      }))
        void tensor;
      for (const name of version.blobNames) landed.set(`blob ${name}`, await version.blob(name).bytes());
      for (const [key, bytes] of model.objects) assert.deepEqual(landed.get(key), bytes);
    }
    for (const [key, target] of this.tags) assert.equal((await this.rig.store.get(key)).id, target.id);
  }
}

let deltasWritten = 0;
let sequencesWithDeltas = 0;

async function runSequence(ops: readonly Op[], seed: number): Promise<void> {
  const rig = await makeRig({
    seed,
    members: 2,
    memberBytes: 32 * 1024 * 1024,
    segmentBytes: 4096 * 4,
    chunkBytes: 262_144,
    redundancy: 2,
  });
  const pair = new Pair(rig);
  for (const op of ops) {
    try {
      await pair.apply(op);
    } catch (error) {
      if (isStoreError(error, 'E_NO_SPACE')) return void (await pair.rig.store.close());
      throw error;
    }
  }
  await pair.compare();
  await pair.apply({ kind: 'reopen' });
  await pair.compare();
  assert.deepEqual(await fsckFindings(pair.rig.store), []);
  await pair.rig.store.close();
  deltasWritten += rig.world.streams.deltas;
  sequencesWithDeltas += Number(rig.world.streams.deltas > 0);
}

test('any sequence of transactions, tags, removals, links and reopens gives what a Map would', async (context) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(opArbitrary, { minLength: 40, maxLength: 120, size: 'max' }),
      fc.nat(1_000_000),
      runSequence,
    ),
    {
      numRuns: RUNS,
      ...(process.env['INGOT_FUZZ_SEED'] === undefined
        ? {}
        : { seed: Number(process.env['INGOT_FUZZ_SEED']) }),
    },
  );
  context.diagnostic(
    `${deltasWritten} chunks were written as differences, in ${sequencesWithDeltas} of ${RUNS} runs`,
  );
  assert.ok(sequencesWithDeltas * 3 >= RUNS, 'one run of three at least writes differences');
});
