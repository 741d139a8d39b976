// The process that gets killed: random changes of one store, each said in the log before and after.
//
//   node kill_writer.js STORE LOG SEED FIRST_NUMBER [REDUNDANCY]
//
// STORE is a location, or members separated by commas; with REDUNDANCY the store is made first. LOG is a file, or a
// drive below /dev: there each line takes a sector of its own, written through every cache.
//
// Invariants
//   1. It goes on until it is killed, or ends with an exit code other than 0: it never ends well by itself.
//   2. What it may do next follows from what the store holds when it is opened, not from the log.
//
// It judges nothing (kill_oracle.ts does).

import { appendFileSync, constants, openSync, writeSync } from 'node:fs';
import { create, open } from '../../engine/index.js';
import { isStoreError } from '../../format/errors.js';
import type { Store, VersionInfo } from '../../engine/index.js';
import { Prng } from '../sim/prng.js';
import {
  CHUNK_BYTES,
  ENCRYPTED_VARIABLE,
  KILL_KEY,
  LOG_SECTOR_BYTES,
  type Lineage,
  type LogLine,
  type Operation,
  RUN,
  TAG,
  codecOf,
  contentOf,
  lineageOf,
  lineageText,
} from './kill_model.js';

/** Versions kept at most: the members are small, so that freed space is soon written again. */
const LIVE_MAX = 9;
/** Steps of one lineage at most: more than a chain of differences is deep. */
const LINEAGE_MAX = 12;

const [, , location = '', logPath = '', seedText = '0', firstText = '1', redundancyText] = process.argv;
const prng = new Prng(Number(seedText));
let nextNumber = Number(firstText);

const isDrive = logPath.startsWith('/dev/');
const drive = isDrive ? openSync(logPath, constants.O_WRONLY | constants.O_SYNC) : -1;
let lineCount = 0;

function say(line: LogLine): void {
  const text = `${JSON.stringify(line)}\n`;
  if (!isDrive) {
    appendFileSync(logPath, text);
    return;
  }
  const sectors = Buffer.alloc(Math.ceil(Buffer.byteLength(text) / LOG_SECTOR_BYTES) * LOG_SECTOR_BYTES);
  sectors.write(text);
  writeSync(drive, sectors, 0, sectors.length, lineCount * LOG_SECTOR_BYTES);
  lineCount += sectors.length / LOG_SECTOR_BYTES;
}

/** Live versions by number. */
const live = new Map<number, { readonly id: string; readonly lineage: Lineage }>();

async function learn(store: Store): Promise<void> {
  for await (const version of store.list({ run: RUN })) note(version);
}

function note(version: VersionInfo): void {
  const lineage = lineageOf(version.metadata['lineage'] ?? '');
  live.set(lineage.at(-1) ?? 0, { id: version.id, lineage });
}

function pick(): number | null {
  const numbers = [...live.keys()];
  return numbers.length === 0 ? null : (numbers[prng.below(numbers.length)] ?? null);
}

function choose(): Operation[] {
  const known = pick();
  if (known !== null && (live.size >= LIVE_MAX || prng.chance(0.25)))
    return [{ kind: 'remove', number: known }];
  if (known !== null && prng.chance(0.15)) return [{ kind: 'tag', number: known }];
  const count = prng.chance(0.3) ? 3 : 1;
  return Array.from({ length: count }, (): Operation => {
    const lineageOfLive = (number: number | null): Lineage | null => live.get(number ?? 0)?.lineage ?? null;
    const link = prng.chance(0.4) ? lineageOfLive(pick()) : null;
    const before = prng.chance(0.5) ? (lineageOfLive(pick()) ?? []) : [];
    nextNumber += 1;
    const lineage = before.length < LINEAGE_MAX ? [...before, nextNumber] : [nextNumber];
    return { kind: 'put', number: nextNumber, lineage, link };
  });
}

async function put(store: Store, operation: Operation & { kind: 'put' }): Promise<void> {
  const { number, lineage, link } = operation;
  const linked = live.get(link?.at(-1) ?? 0)?.id;
  const against = live.get(lineage.at(-2) ?? 0)?.id;
  const metadata = { lineage: lineageText(lineage), ...(link === null ? {} : { link: lineageText(link) }) };
  const options = { metadata, step: number, chunkBytes: CHUNK_BYTES, codec: codecOf(number) };
  const tx = await store.begin(RUN, linked === undefined ? options : { ...options, base: linked });
  try {
    for (const { name, dtype, bytes } of contentOf(lineage, link)) {
      const shape = [dtype === 'BF16' ? bytes.byteLength / 2 : bytes.byteLength];
      const base = name !== 'big' || against === undefined ? {} : { base: { version: against } };
      if (name === 'linked') await tx.link(name, 'big');
      else await tx.put(name, bytes, { dtype, shape }, base);
    }
    note(await tx.commit());
  } catch (error) {
    await tx.abort();
    throw error;
  }
}

async function perform(store: Store, operation: Operation): Promise<void> {
  const id = live.get(operation.number)?.id ?? '';
  try {
    if (operation.kind === 'put') await put(store, operation);
    else if (operation.kind === 'tag') await store.tag(id, TAG);
    else {
      await store.remove(id, { force: true });
      live.delete(operation.number);
    }
    say({ type: 'acknowledged', operation });
  } catch (error) {
    if (!isStoreError(error, 'E_NO_SPACE')) throw error;
    say({ type: 'refused', operation, code: 'E_NO_SPACE' });
  }
}

/** A transaction that is given up: its space must come back and nothing of it be seen. */
async function giveUp(store: Store): Promise<void> {
  const tx = await store.begin(RUN, { chunkBytes: CHUNK_BYTES });
  const bytes = prng.bytes(prng.between(1, 3 * CHUNK_BYTES));
  const putting = tx.put('never', bytes, { dtype: 'U8', shape: [bytes.byteLength] }).catch(() => undefined);
  if (prng.chance(0.5)) await putting;
  await tx.abort();
  await putting;
}

const members = location.split(',');
const place = members.length > 1 ? { members } : location;
if (redundancyText !== undefined) {
  const redundancy = Number(redundancyText) as 1 | 2 | 3;
  await create(place, { members: members.map((path) => ({ path })), redundancy });
}
const isEncrypted = process.env[ENCRYPTED_VARIABLE] === '1';
const store = await open(place, isEncrypted ? { mode: 'rw', key: KILL_KEY } : { mode: 'rw' });
await learn(store);
say({ type: 'ready' });
for (;;) {
  if (prng.chance(0.1)) await giveUp(store);
  const operations = choose();
  say({ type: 'intend', operations });
  await Promise.all(operations.map((operation) => perform(store, operation)));
}
