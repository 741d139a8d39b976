// A store as a user sees it, in plain memory: the oracle of the crash explorer and of the simulator.
//
// Operations are data, so that a workload can be printed, shrunk and replayed; contents follow from a
// seed. The model applies them in order and prints everything visible as canonical text; store_session.ts
// prints a real store the same way.
//
// Invariants
//   1. An operation that cannot apply (no such version, tag in the way) changes nothing, here and there.
//   2. Versions are named by their place among their run's versions, oldest first: ids are the store's.

import { Prng } from './prng.js';
import { simCrc64 } from './sim_checksum.js';

export interface ObjectSpec {
  readonly name: string;
  readonly blob?: boolean;
  readonly byteLength: number;
  readonly seed: number;
  /** Like weights, which a codec makes smaller; else noise. */
  readonly weights?: boolean;
  /** Seeds of the steps of training that the bytes have been through since. */
  readonly steps?: readonly number[];
}
export type StoreOp =
  | {
      readonly kind: 'put';
      readonly run: string;
      readonly step?: number;
      readonly tags?: readonly string[];
      readonly objects: readonly ObjectSpec[];
      readonly redundancy?: 1 | 2 | 3;
      /** Default raw. */
      readonly codec?: 'auto' | 'max';
    }
  /** A version made of all tensors of `run@latest`, linked, and one new small tensor. */
  | { readonly kind: 'link'; readonly run: string; readonly seed: number }
  /** A version of all tensors of `run@latest`, about half of them after a step of training, stored against it. */
  | { readonly kind: 'delta'; readonly run: string; readonly seed: number }
  /** Points a tag at the nth oldest version (modulo their number). */
  | { readonly kind: 'tag'; readonly run: string; readonly tag: string; readonly nth: number }
  | { readonly kind: 'untag'; readonly run: string; readonly tag: string }
  /** Removes the nth oldest version unless a tag other than latest names it. */
  | { readonly kind: 'remove'; readonly run: string; readonly nth: number }
  | { readonly kind: 'abort'; readonly run: string; readonly objects: readonly ObjectSpec[] };

export interface ModelObject {
  readonly blob: boolean;
  readonly byteLength: number;
  readonly sum: bigint;
  /** What its bytes follow from; a store does not know. */
  readonly spec?: ObjectSpec;
}
export interface ModelVersion {
  readonly step: number | null;
  readonly objects: ReadonlyMap<string, ModelObject>;
}
interface ModelRun {
  versions: ModelVersion[];
  tags: Map<string, ModelVersion>;
}

const contents = new Map<string, Uint8Array>();
const CONTENTS_MAX = 4_096;

/** The bytes of an object, by seed, length and kind. The array is shared: do not write to it. */
export function contentOf(spec: Omit<ObjectSpec, 'name'>): Uint8Array {
  const weights = spec.weights === true;
  const steps = spec.steps ?? [];
  const key = `${spec.seed}:${spec.byteLength}:${weights}:${steps.join(',')}`;
  let bytes = contents.get(key);
  if (bytes === undefined) {
    if (contents.size >= CONTENTS_MAX) contents.clear();
    const prng = new Prng(spec.seed);
    bytes = weights ? prng.weights(spec.byteLength) : prng.bytes(spec.byteLength);
    for (const seed of steps) bytes = stepped(bytes, seed);
    contents.set(key, bytes);
  }
  return bytes;
}

/** The bytes after a step of training: one number of thirty or so has another lowest bit. */
export function stepped(bytes: Uint8Array, seed: number): Uint8Array {
  return new Prng(seed).stepped(bytes, 60);
}

/** Which tensors a step changes; the others stay as they are, and are linked. */
export function isSteppedBy(name: string, seed: number): boolean {
  return (name.charCodeAt(name.length - 1) + seed) % 2 === 0;
}

export class StoreModel {
  private readonly runs = new Map<string, ModelRun>();

  static after(ops: readonly StoreOp[]): StoreModel {
    const model = new StoreModel();
    for (const op of ops) model.apply(op);
    return model;
  }

  private run(name: string): ModelRun {
    let run = this.runs.get(name);
    if (run === undefined) {
      run = { versions: [], tags: new Map() };
      this.runs.set(name, run);
    }
    return run;
  }

  versionCount(name: string): number {
    return this.runs.get(name)?.versions.length ?? 0;
  }

  /** The place of the version that `nth` means, or -1. */
  pick(name: string, nth: number): number {
    const count = this.versionCount(name);
    return count === 0 ? -1 : nth % count;
  }

  /** Whether a tag other than latest names the version at this place. */
  isTagged(name: string, place: number): boolean {
    const run = this.run(name);
    return [...run.tags].some(([tag, version]) => tag !== 'latest' && version === run.versions[place]);
  }

  hasTag(name: string, tag: string): boolean {
    return this.runs.get(name)?.tags.has(tag) ?? false;
  }

  apply(op: StoreOp): void {
    const run = this.run(op.run);
    switch (op.kind) {
      case 'put': {
        const objects = new Map(op.objects.map((spec) => [spec.name, modelObject(spec)]));
        this.addVersion(run, { step: op.step ?? null, objects }, op.tags ?? []);
        break;
      }
      case 'link': {
        const base = run.tags.get('latest');
        if (base === undefined) break;
        const objects = new Map([...base.objects].filter(([, object]) => !object.blob));
        objects.set('linked', modelObject({ name: 'linked', byteLength: 64, seed: op.seed }));
        this.addVersion(run, { step: null, objects }, []);
        break;
      }
      case 'delta': {
        const base = run.tags.get('latest');
        if (base === undefined) break;
        const objects = new Map<string, ModelObject>();
        for (const [name, { blob, spec }] of base.objects) {
          if (blob || spec === undefined) continue;
          const steps = isSteppedBy(name, op.seed) ? [...(spec.steps ?? []), op.seed] : (spec.steps ?? []);
          objects.set(name, modelObject({ ...spec, steps }));
        }
        this.addVersion(run, { step: null, objects }, []);
        break;
      }
      case 'tag': {
        const version = run.versions[this.pick(op.run, op.nth)];
        if (version !== undefined) run.tags.set(op.tag, version);
        break;
      }
      case 'untag':
        run.tags.delete(op.tag);
        break;
      case 'remove': {
        const place = this.pick(op.run, op.nth);
        if (place < 0 || this.isTagged(op.run, place)) break;
        const [version] = run.versions.splice(place, 1);
        if (run.tags.get('latest') !== version) break;
        const newest = run.versions.at(-1);
        if (newest === undefined) run.tags.delete('latest');
        else run.tags.set('latest', newest);
        break;
      }
      case 'abort':
        break;
    }
  }

  private addVersion(run: ModelRun, version: ModelVersion, tags: readonly string[]): void {
    run.versions.push(version);
    for (const tag of ['latest', ...tags]) run.tags.set(tag, version);
  }

  /** Everything visible, canonical. */
  dump(): string {
    const lines: string[] = [];
    for (const name of [...this.runs.keys()].sort()) {
      const run = this.run(name);
      run.versions.forEach((version, place) => {
        const tags = [...run.tags].filter(([, target]) => target === version).map(([tag]) => tag);
        lines.push(versionLine({ run: name, place, step: version.step, tags, objects: version.objects }));
      });
    }
    return lines.join('\n');
  }
}

function modelObject(spec: ObjectSpec): ModelObject {
  return { blob: spec.blob === true, byteLength: spec.byteLength, sum: simCrc64(contentOf(spec)), spec };
}

/** One line for one version: the same from the model and from a store. */
export function versionLine(version: {
  readonly run: string;
  readonly place: number;
  readonly step: number | null;
  readonly tags: readonly string[];
  readonly objects: ReadonlyMap<string, ModelObject>;
}): string {
  const objects = [...version.objects]
    .map(
      ([name, object]) =>
        `${object.blob ? 'blob ' : ''}${name}=${object.byteLength}:${object.sum.toString(16)}`,
    )
    .sort();
  const tags = [...version.tags].sort().join(',');
  return `${version.run}#${version.place} step=${version.step ?? '-'} tags=[${tags}] ${objects.join(' ')}`;
}
