// fsck, second half: runs, tags, steps, versions, manifests and extents agree with one another.
//
// Reference counts are recomputed: an extent's from the manifests that name it and the deltas of it, a sum leaf's
// from the extents that use it. Ids are checked in windows of ID_WINDOW, one scan of manifests for each, so that
// memory does not grow with the store.
//
// Invariants
//   1. Every version is listed under its run once, every listed version exists, and their numbers are equal.
//   2. Every id that a manifest or an extent names exists, with exactly as many users as it counts.
//   3. A tensor's pieces lie inside their extents' raw bytes and add up to its bytes (format F16).
//   4. The base of a delta is older, has the range, and is one less deep (codecs.md K11).
//   5. Without the key of an encrypted store manifests stay closed, and a warning says what was not checked.

import { decodeExtent, decodeSumLeaf, extentTreeRecordKind, leafSlotCount } from '../format/extent_record.js';
import type { DeltaBase } from '../format/extent_record.js';
import {
  SUM_LEAF_SUMS_MAX,
  TREE_EXTENTS,
  TREE_MEMBERS,
  TREE_RUNS,
  TREE_VERSIONS,
  decodeExtentKey,
  decodeJobKey,
  decodeManifest,
  decodeMemberKey,
  decodeRunsKey,
  decodeVersionKey,
  equalBytes,
  extentKey,
  isJobKey,
  runVersionKey,
  versionKey,
} from '../format/index.js';
import type { Manifest, Piece } from '../format/manifest_record.js';
import { decodeJob, decodeMember, decodeRun, decodeTag, decodeVersion } from '../format/records.js';
import type { VersionRecord } from '../format/records.js';
import type { TreeView } from './btree.js';
import type { FsckContext } from './fsck_context.js';
import { checkKeys } from './fsck_keys.js';
import { ITEMS_PER_STEP } from './fsck_pages.js';

/** Ids of one window: two arrays of 32-bit numbers and one of bytes, 36 MiB together. */
export const ID_WINDOW = 4 * 1024 * 1024;
const EMPTY = new Uint8Array(0);

export async function* checkRecords(context: FsckContext): AsyncGenerator<void, void, undefined> {
  const isLocked = context.catalog.keys.isLocked;
  if (!isLocked) yield* checkRuns(context);
  yield* checkMembers(context);
  yield* checkKeys(context);
  if (isLocked) {
    context.report({
      severity: 'warn',
      code: 'E_AUTH',
      message:
        'no key was given: runs, versions and keys were not read, and the users of extents were not counted',
      next: 'repeat fsck with a key of the store',
    });
  }
  const { nextId } = context.root;
  for (let first = 0; first < nextId; first += ID_WINDOW) {
    yield* new IdWindow(context, first, Math.min(ID_WINDOW, nextId - first)).check();
  }
}

function complain(context: FsckContext, message: string, object?: string): void {
  context.report({
    severity: 'error',
    code: 'E_FORMAT',
    message,
    ...(object === undefined ? {} : { where: { object } }),
  });
}

/** What has been seen of the run that is being read. */
interface RunTally {
  readonly run: string;
  declaredVersions: number;
  lastVersionId: number;
  versions: number;
  newestId: number;
  versionsWithStep: number;
  steps: number;
}

/** What a step entry carries is the record of its version, byte for byte (format.md F21). */
async function checkStepValue(
  context: FsckContext,
  versions: TreeView,
  run: string,
  id: number,
  value: Uint8Array,
): Promise<void> {
  if (value.byteLength === 0) return;
  const record = await versions.get(versionKey(id, 0));
  if (record === undefined || !equalBytes(record, value))
    complain(context, `the step entry of version ${id} in run ${run} differs from its record`, run);
}

async function* checkRuns(context: FsckContext): AsyncGenerator<void, void, undefined> {
  const versions = context.tree(TREE_VERSIONS);
  let tally: RunTally | null = null;
  let listed = 0;
  let step = 0;
  for await (const { key, value } of context.tree(TREE_RUNS).range(EMPTY, null)) {
    const place = decodeRunsKey(key);
    if (tally === null || tally.run !== place.run) {
      finishRun(context, tally);
      tally = {
        run: place.run,
        declaredVersions: -1,
        lastVersionId: 0,
        versions: 0,
        newestId: 0,
        versionsWithStep: 0,
        steps: 0,
      };
    }
    if (place.kind === 'run') {
      const run = decodeRun(value);
      tally.declaredVersions = run.versionCount;
      tally.lastVersionId = run.lastVersionId;
    } else {
      const id = place.kind === 'tag' ? decodeTag(value).versionId : place.versionId;
      const what =
        place.kind === 'tag' ? `tag ${place.tag}` : place.kind === 'step' ? `step ${place.step}` : 'its list';
      const record = await versionOf(versions, id);
      if (record === undefined)
        complain(context, `run ${place.run}: ${what} names version ${id}, which is not there`, place.run);
      else if (record.run !== place.run)
        complain(context, `run ${place.run}: ${what} names version ${id} of run ${record.run}`, place.run);
      else if (place.kind === 'step' && record.step !== place.step)
        complain(context, `run ${place.run}: ${what} names version ${id} of another step`);
      if (place.kind === 'step') {
        tally.steps += 1;
        await checkStepValue(context, versions, place.run, place.versionId, value);
      }
      if (place.kind === 'version') {
        listed += 1;
        tally.versions += 1;
        tally.newestId = Math.max(tally.newestId, id);
        if (record !== undefined && record.step !== null) tally.versionsWithStep += 1;
      }
    }
    step += 1;
    if (step % ITEMS_PER_STEP === 0) yield;
  }
  finishRun(context, tally);
  if (listed * 2 !== versions.itemCount)
    complain(context, `runs list ${listed} versions, the versions tree has ${versions.itemCount / 2}`);
  if (listed !== context.root.versionCount)
    complain(context, `runs list ${listed} versions, the root counts ${context.root.versionCount}`);
  yield;
}

function finishRun(context: FsckContext, tally: RunTally | null): void {
  if (tally === null) return;
  const { run, declaredVersions, versions } = tally;
  if (declaredVersions < 0) complain(context, `run ${run} has entries but no record`, run);
  else if (declaredVersions !== versions)
    complain(context, `run ${run} counts ${declaredVersions} versions and lists ${versions}`, run);
  if (tally.lastVersionId < tally.newestId)
    complain(
      context,
      `run ${run} names ${tally.lastVersionId} as its last version, it has ${tally.newestId}`,
      run,
    );
  if (tally.steps !== tally.versionsWithStep)
    complain(
      context,
      `run ${run} has ${tally.steps} step entries for ${tally.versionsWithStep} versions`,
      run,
    );
}

async function versionOf(versions: TreeView, id: number): Promise<VersionRecord | undefined> {
  const found = versions.get(versionKey(id, 0));
  const bytes = found instanceof Promise ? await found : found;
  return bytes === undefined ? undefined : decodeVersion(bytes);
}

async function* checkMembers(context: FsckContext): AsyncGenerator<void, void, undefined> {
  const { members } = context.root;
  const seen = new Set<number>();
  for await (const { key, value } of context.tree(TREE_MEMBERS).range(EMPTY, null)) {
    if (isJobKey(key)) {
      decodeJobKey(key);
      decodeJob(value);
      continue;
    }
    const index = decodeMemberKey(key);
    const record = decodeMember(value);
    const entry = members[index];
    seen.add(index);
    if (entry === undefined || !equalBytes(entry.uuid, record.uuid))
      complain(context, `member ${index} is not the one of the root's member table`);
    else if (entry.formattedBytes !== record.formattedBytes)
      complain(context, `member ${index} has another size in the root's member table`);
  }
  for (const [index, entry] of members.entries()) {
    if (entry.formattedBytes > 0 && !seen.has(index))
      complain(context, `member ${index} has no record in the members tree`);
  }
  yield;
}

/** Reference counts and piece bounds of the ids [first, first + count). */
class IdWindow {
  readonly #context: FsckContext;
  readonly #first: number;
  readonly #end: number;
  readonly #uses: Uint32Array;
  readonly #rawBytes: Uint32Array;
  readonly #depth: Uint8Array;
  /** There is no key: versions cannot be read, and users of extents cannot be counted. */
  readonly #isBlind: boolean;

  constructor(context: FsckContext, first: number, count: number) {
    this.#context = context;
    this.#first = first;
    this.#end = first + count;
    this.#uses = new Uint32Array(count);
    this.#rawBytes = new Uint32Array(count);
    this.#depth = new Uint8Array(count);
    this.#isBlind = context.catalog.keys.isLocked;
  }

  async *check(): AsyncGenerator<void, void, undefined> {
    yield* this.#readExtents();
    if (!this.#isBlind) yield* this.#readManifests();
    yield* this.#compare();
    for (let i = 0; i < this.#uses.length; i += 1) {
      if (this.#uses[i] === 0) continue;
      complain(
        this.#context,
        `id ${this.#first + i} is named by ${this.#uses[i]} versions or extents and is not there`,
      );
    }
    yield;
  }

  #inside(id: number): boolean {
    return id >= this.#first && id < this.#end;
  }

  #use(id: number): void {
    if (this.#inside(id)) this.#uses[id - this.#first] = (this.#uses[id - this.#first] as number) + 1;
    else if (id >= this.#context.root.nextId && this.#first === 0)
      complain(this.#context, `id ${id} is named and was never given`);
  }

  /** Raw bytes of the window's extents, and uses of its sum leaves by any extent. */
  async *#readExtents(): AsyncGenerator<void, void, undefined> {
    let step = 0;
    for await (const { key, value } of this.#context.tree(TREE_EXTENTS).range(EMPTY, null)) {
      if (extentTreeRecordKind(value) === 'sum-leaf') continue;
      const id = decodeExtentKey(key);
      const extent = decodeExtent(value);
      const base = extent.coding?.base;
      if (this.#inside(id)) {
        this.#rawBytes[id - this.#first] = extent.rawBytes;
        this.#depth[id - this.#first] = base?.depth ?? 0;
      }
      if (base !== undefined) this.#checkBase(id, extent.rawBytes, base);
      if (extent.sumLeafId !== 0) {
        const last =
          extent.sumLeafId + Math.floor((extent.sumLeafSlot + leafSlotCount(extent) - 1) / SUM_LEAF_SUMS_MAX);
        for (let leaf = extent.sumLeafId; leaf <= last; leaf += 1) this.#use(leaf);
      }
      step += 1;
      if (step % ITEMS_PER_STEP === 0) yield;
    }
  }

  /** Extents come in the order of their ids, so a base of this window was seen before. */
  #checkBase(id: number, rawBytes: number, base: DeltaBase): void {
    this.#use(base.extentId);
    const what = `extent ${id} is a delta of extent ${base.extentId}`;
    if (base.extentId >= id) {
      if (this.#first === 0) complain(this.#context, `${what}, which is not older`);
      return;
    }
    if (!this.#inside(base.extentId)) return;
    const baseBytes = this.#rawBytes[base.extentId - this.#first] as number;
    if (baseBytes === 0) return;
    if (base.offsetBytes + rawBytes > baseBytes) complain(this.#context, `${what} and reaches past its end`);
    const depth = (this.#depth[base.extentId - this.#first] as number) + 1;
    if (base.depth !== depth)
      complain(this.#context, `${what} and calls itself ${base.depth} deep, not ${depth}`);
  }

  async *#readManifests(): AsyncGenerator<void, void, undefined> {
    const runs = this.#context.tree(TREE_RUNS);
    let record: VersionRecord | null = null;
    for await (const { key, value } of this.#context.tree(TREE_VERSIONS).range(EMPTY, null)) {
      const { versionId, part } = decodeVersionKey(key);
      if (part === 0) {
        if (record !== null) complain(this.#context, `version ${record.id} has no manifest`, record.run);
        record = decodeVersion(value);
        if (this.#first === 0) await this.#checkVersion(runs, versionId, record);
        continue;
      }
      const manifest = decodeManifest(value);
      if (record === null || record.id !== versionId)
        complain(this.#context, `version ${versionId} has a manifest and no record`);
      else if (this.#first === 0) this.#checkCounts(record, manifest);
      record = null;
      this.#countManifest(versionId, manifest);
      yield;
    }
    if (record !== null) complain(this.#context, `version ${record.id} has no manifest`, record.run);
  }

  async #checkVersion(runs: TreeView, versionId: number, record: VersionRecord): Promise<void> {
    const { root } = this.#context;
    if (record.id !== versionId)
      complain(this.#context, `version ${versionId} calls itself ${record.id}`, record.run);
    if (versionId >= root.nextVersionId)
      complain(this.#context, `version ${versionId} is not below the root's next version id`, record.run);
    const listed = await runs.has(runVersionKey(record.run, versionId));
    if (!listed)
      complain(this.#context, `version ${versionId} is not listed in run ${record.run}`, record.run);
  }

  #checkCounts(record: VersionRecord, manifest: Manifest): void {
    const { tensors, blobs, files } = manifest;
    const wrong =
      record.tensorCount !== tensors.length ||
      record.blobCount !== blobs.length ||
      record.fileCount !== files.length;
    if (wrong)
      complain(
        this.#context,
        `version ${record.id} counts other tensors, blobs or files than its manifest has`,
        record.run,
      );
    const rawBytes = [...tensors, ...blobs].reduce((sum, object) => sum + object.rawBytes, 0);
    if (rawBytes !== record.rawBytes)
      complain(
        this.#context,
        `version ${record.id} counts ${record.rawBytes} bytes, its manifest ${rawBytes}`,
        record.run,
      );
  }

  #countManifest(versionId: number, manifest: Manifest): void {
    const named = new Set<number>();
    for (const object of [...manifest.tensors, ...manifest.blobs]) {
      const what = `v:${versionId} ${object.name}`;
      this.#checkPieces(what, object.pieces, object.rawBytes, object.inlineBytes.length);
      for (const piece of object.pieces) named.add(piece.extentId);
    }
    for (const id of named) this.#use(id);
  }

  #checkPieces(what: string, pieces: readonly Piece[], rawBytes: number, inlineBytes: number): void {
    let total = inlineBytes;
    for (const piece of pieces) {
      total += piece.rawBytes;
      if (!this.#inside(piece.extentId)) continue;
      const extentBytes = this.#rawBytes[piece.extentId - this.#first] as number;
      if (extentBytes > 0 && piece.rawOffset + piece.rawBytes > extentBytes) {
        complain(this.#context, `${what} names bytes past the end of extent ${piece.extentId}`, what);
      }
    }
    if (total !== rawBytes && this.#first === 0)
      complain(this.#context, `${what} has ${rawBytes} bytes, its pieces ${total}`, what);
  }

  /** Counts in the records against uses found; a use that is accounted for is taken off. */
  async *#compare(): AsyncGenerator<void, void, undefined> {
    let step = 0;
    for await (const { key, value } of this.#context
      .tree(TREE_EXTENTS)
      .range(extentKey(this.#first), extentKey(this.#end))) {
      const id = decodeExtentKey(key);
      const leaf = extentTreeRecordKind(value) === 'sum-leaf';
      const { referenceCount } = leaf ? decodeSumLeaf(value) : decodeExtent(value);
      const uses = this.#uses[id - this.#first] as number;
      if (!leaf && this.#isBlind) continue;
      const kind = leaf ? 'sum leaf' : 'extent';
      if (uses === 0) complain(this.#context, `${kind} ${id} is used by nothing`);
      else if (uses !== referenceCount)
        complain(this.#context, `${kind} ${id} counts ${referenceCount} users and has ${uses}`);
      this.#uses[id - this.#first] = 0;
      step += 1;
      if (step % ITEMS_PER_STEP === 0) yield;
    }
  }
}
