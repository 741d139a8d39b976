// The steps of the quickstart, one after another, with what each found.
//
// Invariants
//   1. A step that does not hold what it shows throws; nothing is printed as done that was not.
//   2. The source, the members and the export are evicted from the page cache before they are timed, and what could be
//      checked of that is printed.
//   3. Reads and their yardstick alternate, PAIRS times; the table has medians.

import { join } from 'node:path';
import { create, type MaintEvent, open, type Store, type Version } from '../../engine/index.js';
import { redundancyText } from '../commands/create.js';
import { treeLines } from '../commands/tree.js';
import { formatBytes, formatRate } from '../cli/progress.js';
import type { Session } from '../cli/session.js';
import { faultText, findingText } from '../cli/views.js';
import { exportVersion } from '../export/exporter.js';
import { importModel } from '../import/importer.js';
import { generateModel } from '../model_generator.js';
import { type CheckpointTensor, loadAndCompare, makeCheckpoint, saveCheckpoint } from './checkpoint.js';
import { choosePlace, overwrite, requireFaults } from './damage.js';
import { compareDirectories, filesBelow } from './compare_files.js';
import { LoadTarget } from './load_target.js';
import { evict } from './page_cache.js';
import { type Figure, median, printFigures } from './figures.js';
import { findYardstick, type Stretch, type Yardstick } from './yardstick.js';

const RUN = 'llama-3-8b-shapes';
const CHECKPOINT_RUN = 'exp42/ckpt';
const CHECKPOINT_STEP = 1200;
const PAIRS = 3;
const COMMITS = 20;
const MIB = 1024 * 1024;
const MAX_CHECKPOINT_BYTES = 256 * MIB;
/** Room in each member beside the data: catalog, reserve, small commits. */
const MEMBER_ROOM_BYTES = 32 * MIB;
const TREE_LINES = 14;
const TREE_DEPTH = 4;
const BLOCK_BYTES = 4 * MIB;
/** Where data begins on a member. */
const DATA_OFFSET_BYTES = MIB;

export class Demonstration {
  readonly #session: Session;
  readonly #sizeBytes: number;
  readonly #model: string;
  readonly #storePath: string;
  readonly #exported: string;
  readonly #members: readonly string[];
  readonly #directory: string;
  readonly #figures: Figure[] = [];
  #step = 0;

  constructor(session: Session, directory: string, sizeBytes: number) {
    this.#session = session;
    this.#sizeBytes = sizeBytes;
    this.#directory = directory;
    this.#model = join(directory, 'model');
    this.#storePath = join(directory, 'store');
    this.#exported = join(directory, 'export');
    this.#members = ['0.member', '1.member'].map((name) => join(this.#storePath, name));
  }

  async run(): Promise<void> {
    const yardstick = await findYardstick(this.#directory);
    this.#say(
      `Everything lies in ${this.#directory}. The yardstick is ${yardstick.name} on the same disk, in this run.`,
    );
    const modelBytes = await this.#makeModel();
    const checkpoint = makeCheckpoint(Math.min(MAX_CHECKPOINT_BYTES, Math.ceil(modelBytes / 8)));
    await this.#makeStore(modelBytes, checkpoint);
    await this.#import(yardstick, modelBytes);
    await this.#look();
    await this.#load(yardstick);
    await this.#export(yardstick, modelBytes);
    await this.#commitLatency(yardstick);
    await this.#surviveDamage(checkpoint);
    this.#say('');
    printFigures(this.#session.out, yardstick.name, this.#figures);
    this.#say(
      'Small virtual disks swing by a factor of two or three from run to run; npm run bench has many short pairs.',
    );
  }

  #say(text: string): void {
    this.#session.out.line(text);
  }

  #title(text: string): void {
    this.#step++;
    this.#say('');
    this.#say(`${this.#step}. ${text}`);
  }

  async #makeModel(): Promise<number> {
    this.#title(
      'Generate a model: sharded bf16 safetensors with Llama-3-8B shapes, in the layout of Hugging Face',
    );
    const meter = this.#session.progress('generate', null);
    const model = await generateModel(this.#model, {
      sizeBytes: this.#sizeBytes,
      signal: this.#session.signal,
      onProgress: ({ bytes, totalBytes }) => {
        meter.setTotal(totalBytes);
        meter.update({ bytes });
      },
    });
    meter.finish({ bytes: model.tensorBytes });
    this.#say(
      `   ${model.layers} layers, ${model.tensorCount} tensors, ` +
        `${formatBytes(model.tensorBytes)} in ${model.fileNames.length} files`,
    );
    return model.tensorBytes;
  }

  async #makeStore(modelBytes: number, checkpoint: readonly CheckpointTensor[]): Promise<void> {
    this.#title('Make a store over two members (files here; block devices work alike)');
    const checkpointBytes = checkpoint.reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
    // Half of the model each, a copy of the checkpoint each, and the 1/32 that a store keeps in reserve.
    const wanted = (modelBytes / 2 + checkpointBytes) * 1.06 + MEMBER_ROOM_BYTES;
    const sizeBytes = Math.ceil(wanted / MIB) * MIB;
    await create(this.#storePath, {
      members: this.#members.map((path) => ({ path, sizeBytes })),
      redundancy: 2,
      signal: this.#session.signal,
    });
    await this.#withStore('r', async ({ info }) => {
      const [first] = info.members;
      this.#say(
        `   store ${info.uuid}: ${info.members.length} members of ${formatBytes(sizeBytes)}, ` +
          `path ${first?.ioPath ?? '?'}`,
      );
    });
  }

  async #import(yardstick: Yardstick, modelBytes: number): Promise<void> {
    this.#title('Import it, striped: each chunk once, chunks in rotation over the members');
    this.#say(`   ${redundancyText(1, this.#members.length)}`);
    const writes = [await this.#yardstickWrite(yardstick, modelBytes)];
    await this.#cold(await this.#modelFiles(), 'the source');
    await this.#withStore('rw', async (store) => {
      const meter = this.#session.progress(`import ${RUN}`, null);
      const started = performance.now();
      const { version, source } = await importModel(store, this.#model, {
        run: RUN,
        redundancy: 1,
        signal: this.#session.signal,
        onSource: (found) => meter.setTotal(found.totalBytes),
        onProgress: (bytes, phase, items) => meter.update({ bytes, phase, items, path: pathOf(store) }),
      });
      const rate = (source.totalBytes * 1000) / (performance.now() - started);
      meter.finish({ bytes: source.totalBytes, path: pathOf(store) });
      this.#say(
        `   ${version.id}: ${version.tensorCount} tensors, ${formatRate(rate)}, durable when this line was printed`,
      );
      writes.push(await this.#yardstickWrite(yardstick, modelBytes));
      this.#figures.push({
        what: 'import (reads the model, writes the store, commits)',
        ours: rate,
        yardstick: median(writes),
        unit: 'rate',
        yardstickWhat: 'write + fsync alone',
      });
    });
  }

  async #look(): Promise<void> {
    this.#title('Look at it');
    await this.#withStore('r', async (store) => {
      const version = await store.get(RUN);
      const lines = treeLines(version, TREE_DEPTH);
      for (const line of lines.slice(0, TREE_LINES)) this.#say(`   ${line}`);
      if (lines.length > TREE_LINES)
        this.#say(`   ... ${lines.length - TREE_LINES} more lines (ingot tree ${RUN})`);
      this.#title('Verify it: every byte is read and checked against its sum');
      const { done, findings } = await this.#verify(version, RUN);
      if (findings.length > 0) throw new Error(`verify found: ${findings.map(findingText).join('; ')}`);
      const rate = (done.scannedBytes * 1000) / done.durationMs;
      this.#say(
        `   ${formatBytes(done.scannedBytes)} at ${formatRate(rate)}: every copy is as it was written`,
      );
    });
  }

  async #load(yardstick: Yardstick): Promise<void> {
    this.#title('Load it whole into memory, cold, every segment checked before it counts as read');
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let pair = 0; pair < PAIRS; pair++) {
      await this.#cold(this.#members, 'the members', pair === 0);
      await this.#withStore('r', async (store) => {
        const version = await store.get(RUN);
        const target = await LoadTarget.make(store, version);
        try {
          if (pair === 0) this.#say(`   ${target.describe()}`);
          const meter = this.#session.progress(`load ${RUN} (${pair + 1} of ${PAIRS})`, target.byteLength);
          ours.push(
            await target.load(this.#session.signal, (bytes) => meter.update({ bytes, path: pathOf(store) })),
          );
          meter.finish({ bytes: target.byteLength, path: pathOf(store) });
          target.check();
        } finally {
          await target.close();
        }
        const stretches = await this.#writtenStretches(store);
        await this.#cold(this.#members, 'the members', false);
        theirs.push(await yardstick.read(stretches));
      });
    }
    const rates = ours.map((rate) => formatRate(rate)).join(', ');
    this.#say(
      `   ${rates}; ${yardstick.name} on the same members: ${theirs.map((rate) => formatRate(rate)).join(', ')}`,
    );
    this.#figures.push({
      what: 'verified cold read',
      ours: median(ours),
      yardstick: median(theirs),
      unit: 'rate',
      yardstickWhat: 'read of the members',
    });
  }

  async #export(yardstick: Yardstick, modelBytes: number): Promise<void> {
    this.#title('Export it, and compare every file byte for byte');
    await this.#cold(this.#members, 'the members', false);
    await this.#withStore('r', async (store) => {
      const version = await store.get(RUN);
      const meter = this.#session.progress(`export ${RUN}`, null);
      const started = performance.now();
      const exported = await exportVersion(store, version, this.#exported, {
        format: 'original',
        signal: this.#session.signal,
        onPlan: (plan) => meter.setTotal(plan.totalBytes),
        onProgress: (bytes, items, path) =>
          meter.update({ bytes, items, path: `${pathOf(store)} to ${path}` }),
      });
      const rate = (exported.totalBytes * 1000) / (performance.now() - started);
      meter.finish({ bytes: exported.totalBytes });
      const comparing = this.#session.progress('compare', exported.totalBytes);
      const compared = await compareDirectories(this.#model, this.#exported, (bytes) =>
        comparing.update({ bytes }),
      );
      comparing.finish({ bytes: compared.bytes });
      this.#say(
        `   ${compared.files} files, ${compared.bytes} bytes: all identical; ` +
          `exported at ${formatRate(rate)} (${exported.path})`,
      );
      this.#figures.push({
        what: 'export (reads the store, writes the files, fsync)',
        ours: rate,
        unit: 'rate',
        yardstick: await this.#yardstickWrite(yardstick, modelBytes),
        yardstickWhat: 'write + fsync alone',
      });
    });
  }

  async #commitLatency(yardstick: Yardstick): Promise<void> {
    this.#title(
      `Commit ${COMMITS} small versions: data, catalog, flush, superblocks, read back, then the answer`,
    );
    const before = await yardstick.syncLatency();
    const seconds: number[] = [];
    await this.#withStore('rw', async (store) => {
      for (let index = 0; index < COMMITS; index++) {
        const transaction = await store.begin('exp42/log', { step: index, signal: this.#session.signal });
        await transaction.putBlob('metrics.json', Buffer.from(`{"step":${index}}\n`));
        const started = performance.now();
        await transaction.commit();
        seconds.push((performance.now() - started) / 1000);
      }
    });
    const after = await yardstick.syncLatency();
    this.#say(`   median ${(median(seconds) * 1000).toFixed(2)} ms on ${this.#members.length} members`);
    this.#figures.push({
      what: 'commit latency, 2 members',
      ours: median(seconds),
      yardstick: median([before, after]),
      unit: 'latency',
      yardstickWhat: '4 KiB write + fdatasync',
    });
  }

  async #surviveDamage(checkpoint: readonly CheckpointTensor[]): Promise<void> {
    const { signal } = this.#session;
    this.#title('Save a checkpoint, mirrored: two copies of each chunk on two members');
    const place = await this.#withStore('rw', async (store) => {
      const version = await saveCheckpoint(store, CHECKPOINT_RUN, CHECKPOINT_STEP, checkpoint, signal);
      this.#say(
        `   ${CHECKPOINT_RUN}@${CHECKPOINT_STEP} (${version.id}): ${formatBytes(version.byteLength)}, ` +
          `${formatBytes(version.storedBytes)} stored; tags latest, best`,
      );
      return choosePlace(version);
    });

    this.#title('Overwrite part of one copy directly on a member, behind the back of the store');
    await overwrite(place);
    this.#say(
      `   ${place.lengthBytes} random bytes at offset ${place.offsetBytes} of ${place.member} (${place.tensor})`,
    );

    this.#title('Load the checkpoint all the same, and compare every byte with what was saved');
    await this.#withStore('r', async (store) => {
      const version = await store.get(`${CHECKPOINT_RUN}@best`);
      const faults = await loadAndCompare(store, version, checkpoint, signal);
      for (const fault of faults.slice(0, 4)) this.#say(`   ${faultText(fault)}`);
      if (faults.length > 4) this.#say(`   and ${faults.length - 4} more segments of that stretch`);
      requireFaults(faults, place);
      this.#say('   every byte is as it was saved: each damaged segment came from the other member');
      const { findings } = await this.#verify(version, CHECKPOINT_RUN);
      const last = findings[0];
      if (last === undefined) throw new Error('verify did not find the damage');
      this.#say(`   verify finds it too (${findings.length} findings): ${findingText(last)}`);
    });
  }

  async #verify(version: Version, label: string) {
    const meter = this.#session.progress(`verify ${label}`, version.storedBytes);
    const findings: Extract<MaintEvent, { type: 'finding' }>[] = [];
    let done = { scannedBytes: 0, durationMs: 1 };
    for await (const event of version.verify({ signal: this.#session.signal })) {
      if (event.type === 'progress') meter.update({ bytes: event.progress.bytes });
      else if (event.type === 'finding') findings.push(event);
      else done = event;
    }
    meter.finish({ bytes: done.scannedBytes });
    return { findings, done };
  }

  async #withStore<T>(mode: 'r' | 'rw', body: (store: Store) => Promise<T>): Promise<T> {
    const store = await open(this.#storePath, { mode, signal: this.#session.signal });
    try {
      for (const line of store.info.openReport) this.#session.log('warn', line);
      return await body(store);
    } finally {
      this.#session.clearProgress();
      await store.close();
    }
  }

  async #modelFiles(): Promise<string[]> {
    return (await filesBelow(this.#model)).map((name) => join(this.#model, name));
  }

  /** Evicts files and says what is known of it. */
  async #cold(paths: readonly string[], what: string, say = true): Promise<void> {
    const { asked, checked, residentBytes } = await evict(paths);
    if (!say) return;
    if (!asked) this.#say(`   ${what}: not evicted from the page cache (dd is missing), so this is not cold`);
    else if (!checked)
      this.#say(`   ${what}: evicted from the page cache; fincore is missing, so nobody checked`);
    else if (residentBytes === 0) this.#say(`   ${what}: evicted from the page cache, checked with fincore`);
    else
      this.#say(
        `   ${what}: ${formatBytes(residentBytes)} stay in memory (a RAM-backed file system?), so this is not cold`,
      );
  }

  async #yardstickWrite(yardstick: Yardstick, bytes: number): Promise<number> {
    this.#session.signal.throwIfAborted();
    return yardstick.write(Math.min(bytes, 512 * MIB));
  }

  /** The front of each member's data area, as far as it is filled. */
  async #writtenStretches(store: Store): Promise<Stretch[]> {
    return store.info.members.map(({ path, allocatedBytes }) => ({
      path,
      offsetBytes: DATA_OFFSET_BYTES,
      lengthBytes: Math.max(BLOCK_BYTES, Math.floor((allocatedBytes * 0.95) / BLOCK_BYTES) * BLOCK_BYTES),
    }));
  }
}

const pathOf = (store: Store): string => store.info.members[0]?.ioPath ?? 'unknown';
