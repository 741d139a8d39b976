// lmdb (npm) as the peer of the catalog and as a blob store.
//
// Invariants
//   1. A put counts when it would survive a power cut: `putEach` has lmdb flush within each of its commits
//      (overlappingSync off), `putInWaves` awaits `flushed` after every wave.
//   2. Where the package is not installed, the caller gets a reason to show, never an exception.
//
// The package is a development dependency; users of the store do not get it.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

interface Database {
  put(key: unknown, value: unknown): Promise<boolean>;
  get(key: unknown): unknown;
  getBinaryFast(key: unknown): Uint8Array | undefined;
  putSync(key: unknown, value: unknown): boolean;
  readonly flushed: Promise<unknown>;
  close(): Promise<void>;
}
export type LmdbBlobs = Database;
type Open = (options: object) => Database;
type RecordOf = (index: number) => { readonly key: unknown; readonly value: object };

async function findOpen(): Promise<Open | { readonly skip: string }> {
  try {
    // A name that is not a literal: the compiler does not ask for a package that may be missing.
    const name: string = 'lmdb';
    return ((await import(name)) as { readonly open: Open }).open;
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
    return { skip: `lmdb could not be loaded: ${reason}` };
  }
}

export class LmdbPeer {
  readonly #waves: Database;
  readonly #each: Database;
  constructor(waves: Database, each: Database) {
    this.#waves = waves;
    this.#each = each;
  }

  /** Puts of [from, to) in waves; each wave is flushed before the next begins. */
  async putInWaves(from: number, to: number, wave: number, recordOf: RecordOf): Promise<void> {
    for (let start = from; start < to; start += wave) {
      const puts: Promise<boolean>[] = [];
      for (let index = start; index < Math.min(to, start + wave); index += 1) {
        const { key, value } = recordOf(index);
        puts.push(this.#waves.put(key, value));
      }
      await Promise.all(puts);
      await this.#waves.flushed;
    }
  }

  /** Puts of [from, to), so many in flight at any time, each durable when it resolves. */
  async putEach(from: number, to: number, inFlight: number, recordOf: RecordOf): Promise<void> {
    let next = from;
    const lane = async (): Promise<void> => {
      while (next < to) {
        const { key, value } = recordOf(next);
        next += 1;
        await this.#each.put(key, value);
      }
    };
    await Promise.all(Array.from({ length: inFlight }, lane));
  }

  get(key: unknown): unknown {
    return this.#each.get(key);
  }

  async close(): Promise<void> {
    await this.#waves.close();
    await this.#each.close();
  }
}

export async function openLmdb(path: string): Promise<LmdbPeer | { readonly skip: string }> {
  const open = await findOpen();
  if (typeof open !== 'function') return open;
  await mkdir(path, { recursive: true });
  const waves = open({ path: join(path, 'waves') });
  const each = open({ path: join(path, 'each'), overlappingSync: false });
  return new LmdbPeer(waves, each);
}

/** A database of byte strings, as large as asked for. */
export async function openLmdbBlobs(
  path: string,
  mapBytes: number,
): Promise<Database | { readonly skip: string }> {
  const open = await findOpen();
  if (typeof open !== 'function') return open;
  return open({ path, noSubdir: true, encoding: 'binary', mapSize: mapBytes, overlappingSync: false });
}
