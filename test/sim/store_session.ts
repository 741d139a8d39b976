// A real store over a simulated machine, driven by the operations of store_model.ts and printed as the model is.
//
// Invariants
//   1. `apply` resolves when the store acknowledged; it rejects with what the store rejected with.
//   2. `dump` reads every byte of every tensor and blob through the public API.
//   3. `check` is fsck with data: every finding counts, warnings too.

import type { Session } from '../crash/explorer.js';
import { fsck } from '../../engine/fsck.js';
import { createWith, openWith } from '../../engine/open_store.js';
import type { Store } from '../../engine/store.js';
import type { StoreKey, VersionInfo } from '../../engine/types.js';
import type { Version } from '../../engine/version.js';
import { isStoreError } from '../../format/errors.js';
import { simCrc64 } from './sim_checksum.js';
import type { SimIo } from './sim_io.js';
import {
  contentOf,
  isSteppedBy,
  stepped,
  versionLine,
  type ModelObject,
  type ObjectSpec,
  type StoreOp,
} from './store_model.js';

/** The shape of the store under test. */
export interface StoreShape {
  readonly members: readonly string[];
  readonly memberBytes: number;
  readonly redundancy: 1 | 2 | 3;
  readonly chunkBytes: number;
  readonly segmentBytes: number;
  /** Made with encryption, and opened with its key. */
  readonly encrypted?: boolean;
}

const KEY: StoreKey = { kind: 'key-file', secret: new Uint8Array(32).fill(7) };

/** Small chunks and segments, so that small tensors have several extents and more than 32 sums. */
export function smallShape(memberCount: number, redundancy?: 1 | 2 | 3): StoreShape {
  return {
    members: Array.from({ length: memberCount }, (_unused, i) => `m${i}`),
    memberBytes: 8 * 1024 * 1024,
    redundancy: redundancy ?? (memberCount > 1 ? 2 : 1),
    chunkBytes: 256 * 1024,
    segmentBytes: 4096,
  };
}

export class StoreSession implements Session<StoreOp> {
  readonly store: Store;

  constructor(store: Store) {
    this.store = store;
  }

  static async create(io: SimIo, shape: StoreShape, force = false): Promise<StoreSession> {
    const { redundancy, chunkBytes, segmentBytes } = shape;
    const members = shape.members.map((path) => ({ path, sizeBytes: shape.memberBytes }));
    const ports = { io, files: null, closeIo: false };
    const encrypt = { key: KEY, onRecoveryKey: () => undefined };
    const made = { members, redundancy, chunkBytes, segmentBytes, force };
    await createWith(ports, { members: [] }, shape.encrypted === true ? { ...made, encrypt } : made);
    return StoreSession.open(io, shape);
  }

  static async open(io: SimIo, shape: StoreShape, mode: 'r' | 'rw' = 'rw'): Promise<StoreSession> {
    return new StoreSession(
      await openWith(
        { io, files: null, closeIo: true },
        { members: shape.members },
        shape.encrypted === true ? { mode, key: KEY } : { mode },
      ),
    );
  }

  private async versions(run: string): Promise<VersionInfo[]> {
    const versions: VersionInfo[] = [];
    for await (const version of this.store.list({ run })) versions.push(version);
    return versions;
  }

  async apply(op: StoreOp): Promise<void> {
    const { store } = this;
    switch (op.kind) {
      case 'put': {
        const begin = {
          ...(op.step === undefined ? {} : { step: op.step }),
          ...(op.redundancy === undefined ? {} : { redundancy: op.redundancy }),
          ...(op.codec === undefined ? {} : { codec: op.codec }),
        };
        await using tx = await store.begin(op.run, begin);
        await putObjects(tx, op.objects);
        await tx.commit({ tags: op.tags ?? [] });
        break;
      }
      case 'link': {
        if ((await this.versions(op.run)).length === 0) break;
        const base = await store.get(`${op.run}@latest`);
        await using tx = await store.begin(op.run, { base: base.id });
        for (const name of base.names) if (name !== 'linked') await tx.link(name);
        await putObjects(tx, [{ name: 'linked', byteLength: 64, seed: op.seed }]);
        await tx.commit();
        break;
      }
      case 'delta': {
        if ((await this.versions(op.run)).length === 0) break;
        const base = await store.get(`${op.run}@latest`);
        await using tx = await store.begin(op.run, { base: base.id, delta: true });
        for (const { name, dtype, shape } of base.tensors) {
          const bytes = await base.tensor(name).read();
          await tx.put(name, isSteppedBy(name, op.seed) ? stepped(bytes, op.seed) : bytes, { dtype, shape });
        }
        await tx.commit();
        break;
      }
      case 'tag': {
        const versions = await this.versions(op.run);
        const version = versions[versions.length === 0 ? 0 : op.nth % versions.length];
        if (version !== undefined) await store.tag(version.id, op.tag);
        break;
      }
      case 'untag': {
        const versions = await this.versions(op.run);
        if (versions.some((version) => version.tags.includes(op.tag))) await store.untag(op.run, op.tag);
        break;
      }
      case 'remove': {
        const versions = await this.versions(op.run);
        const version = versions[versions.length === 0 ? 0 : op.nth % versions.length];
        if (version !== undefined && version.tags.every((tag) => tag === 'latest'))
          await store.remove(version.id);
        break;
      }
      case 'abort': {
        const tx = await store.begin(op.run);
        await putObjects(tx, op.objects);
        await tx.abort();
        break;
      }
    }
  }

  async dump(): Promise<string> {
    const lines: string[] = [];
    const places = new Map<string, number>();
    for await (const info of this.store.list()) {
      const place = places.get(info.run) ?? 0;
      places.set(info.run, place + 1);
      const version = await this.store.get(info.id);
      lines.push(
        versionLine({
          run: info.run,
          place,
          step: info.step,
          tags: info.tags,
          objects: await contents(version),
        }),
      );
    }
    return lines.join('\n');
  }

  async check(): Promise<readonly string[]> {
    const findings: string[] = [];
    for await (const event of fsck(this.store.catalog, { data: true })) {
      if (event.type === 'finding')
        findings.push(
          `${event.severity} ${event.error.code} ${event.error.message} ${JSON.stringify(event.error.where)}`,
        );
    }
    return findings;
  }

  /** Whether some member is not here. */
  isShort(): boolean {
    return this.store.catalog.members.some(({ state }) => state === 'missing' || state === 'stale');
  }

  /** Whether the table says that some member missed something. */
  wasDegraded(): boolean {
    const { members } = this.store.catalog.superblock;
    return members.some((entry) => entry.state !== 1 || entry.birthSequence > 1);
  }

  close(): Promise<void> {
    return this.store.close();
  }
}

async function putObjects(
  tx: Awaited<ReturnType<Store['begin']>>,
  objects: readonly ObjectSpec[],
): Promise<void> {
  for (const spec of objects) {
    const bytes = contentOf(spec);
    if (spec.blob === true) await tx.putBlob(spec.name, bytes);
    else if (spec.weights === true && spec.byteLength % 2 === 0)
      await tx.put(spec.name, bytes, { dtype: 'BF16', shape: [spec.byteLength / 2] });
    else await tx.put(spec.name, bytes, { dtype: 'U8', shape: [spec.byteLength] });
  }
}

async function contents(version: Version): Promise<Map<string, ModelObject>> {
  const objects = new Map<string, ModelObject>();
  const buffers = new Map<string, Uint8Array>();
  const into = (tensor: { name: string; byteLength: number }): Uint8Array => {
    const bytes = new Uint8Array(tensor.byteLength);
    buffers.set(tensor.name, bytes);
    return bytes;
  };
  for await (const { name, byteLength } of version.load(into)) {
    objects.set(name, { blob: false, byteLength, sum: simCrc64(buffers.get(name) ?? new Uint8Array(0)) });
  }
  for (const name of version.blobNames) {
    const bytes = await version.blob(name).bytes();
    objects.set(name, { blob: true, byteLength: bytes.length, sum: simCrc64(bytes) });
  }
  return objects;
}

/**
 * Errors that a store whose creation was cut short may give: it never was a store. One copy of the first root may
 * be there (E_CORRUPT, quorum lost), or the root on one member only (E_DEGRADED).
 */
export function isUnformatted(error: unknown): boolean {
  return (['E_FORMAT', 'E_NOT_FOUND', 'E_CORRUPT', 'E_DEGRADED'] as const).some((code) =>
    isStoreError(error, code),
  );
}
