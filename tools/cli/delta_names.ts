// What the deltas of a version are differences to, in words: "delta of v:12, depth 2".
//
// Invariants
//   1. An extent is said to be of a version only when that version's manifest names it; else it is named by its id.
//   2. Records are read, never a byte of a tensor.

import type { ExtentPlace, Store, Version } from '../../engine/index.js';
import { isStoreError } from '../../format/errors.js';
import { DELTA_DEPTH_MAX } from '../../format/index.js';

/** Deltas of a tensor or a version. */
export interface DeltaSummary {
  /** Extents that are differences, of all that were looked at. */
  readonly deltaExtents: number;
  readonly extents: number;
  /** The greatest number of bases below one of them; 0 without deltas. */
  readonly depth: number;
  /** Where the bases are: ids of versions, or `extent 7` where the version has gone. */
  readonly bases: readonly string[];
}

export class DeltaNames {
  readonly #base: string;
  /** The version whose manifest names an extent, for those of the base and of what lies below it. */
  readonly #versionOf: ReadonlyMap<number, string>;

  private constructor(base: string, versionOf: ReadonlyMap<number, string>) {
    this.#base = base;
    this.#versionOf = versionOf;
  }

  /** Looks the base of `version` up, and its base, and so on, as deep as deltas go; any of them may be gone. */
  static async of(store: Store, version: Version, signal: AbortSignal): Promise<DeltaNames> {
    const versionOf = new Map<number, string>();
    let next = version.base;
    let isThere = true;
    for (let depth = 0; depth <= DELTA_DEPTH_MAX && next !== null; depth += 1) {
      const base: Version | null = await findVersion(store, next, signal);
      if (depth === 0) isThere = base !== null;
      if (base === null) break;
      for (const { pieces } of base.manifest.tensors)
        for (const { extentId } of pieces) versionOf.set(extentId, base.id);
      next = base.base;
    }
    const name = version.base ?? '';
    return new DeltaNames(isThere ? name : `${name} (removed)`, versionOf);
  }

  /** `v:12`, or `v:12 (removed)`. */
  get base(): string {
    return this.#base;
  }

  summarize(places: readonly ExtentPlace[]): DeltaSummary {
    const extents = new Map(places.map((place) => [place.extentId, place.coding]));
    const deltas = [...extents.values()].filter((coding) => coding !== null && coding.baseExtentId !== null);
    const bases = new Set(deltas.map((coding) => this.#nameOf(coding?.baseExtentId ?? 0)));
    const depth = deltas.reduce((deepest, coding) => Math.max(deepest, coding?.depth ?? 0), 0);
    return { deltaExtents: deltas.length, extents: extents.size, depth, bases: [...bases] };
  }

  #nameOf(extentId: number): string {
    return this.#versionOf.get(extentId) ?? `extent ${extentId}`;
  }
}

async function findVersion(store: Store, id: string, signal: AbortSignal): Promise<Version | null> {
  try {
    return await store.get(id, { signal });
  } catch (error) {
    if (isStoreError(error, 'E_NOT_FOUND')) return null;
    throw error;
  }
}

/** Bases listed by name at most. */
const SHOWN_BASES = 3;

/** `delta of v:12, depth 2`; null without deltas. */
export function deltaText({ deltaExtents, extents, depth, bases }: DeltaSummary): string | null {
  if (deltaExtents === 0) return null;
  const more = bases.length > SHOWN_BASES ? ` and ${bases.length - SHOWN_BASES} more` : '';
  const part = deltaExtents === extents ? '' : ` (${deltaExtents} of ${extents} chunks)`;
  return `delta of ${bases.slice(0, SHOWN_BASES).join(', ')}${more}, depth ${depth}${part}`;
}
