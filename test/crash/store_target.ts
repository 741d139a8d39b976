// The store as the crash explorer sees it, and the small set of operations that workloads are made of.
//
// The set touches every path that a commit can take: inline tensors, extents with and without sum
// leaves, blobs, a large manifest value, steps, tags, links, removal (deferred frees) and abort.

import type { SimIo } from '../sim/sim_io.js';
import { StoreModel, type StoreOp } from '../sim/store_model.js';
import { isUnformatted, StoreSession, type StoreShape } from '../sim/store_session.js';
import type { CrashTarget, Session } from './explorer.js';

/** Operations of the bounded workloads, by letter. */
export const SMALL_OPS: readonly StoreOp[] = [
  {
    kind: 'put',
    run: 'a',
    objects: [
      { name: 'x', byteLength: 100, seed: 1 },
      { name: 'note', blob: true, byteLength: 40, seed: 2 },
    ],
  },
  {
    kind: 'put',
    run: 'b',
    step: 7,
    objects: [
      { name: 'w', byteLength: 160 * 1024 + 3, seed: 3 },
      { name: 's', byteLength: 5000, seed: 4 },
    ],
  },
  { kind: 'tag', run: 'b', tag: 'best', nth: 0 },
  { kind: 'remove', run: 'b', nth: 0 },
  { kind: 'link', run: 'b', seed: 5 },
  {
    kind: 'put',
    run: 'a',
    step: 8,
    tags: ['kept'],
    objects: Array.from({ length: 24 }, (_unused, i) => ({
      name: `t${i}`,
      byteLength: 130 + i,
      seed: 10 + i,
    })),
  },
  { kind: 'abort', run: 'b', objects: [{ name: 'w', byteLength: 9000, seed: 6 }] },
];

/** A coded version, one against it, one against that, and the first two gone: references go down a chain. */
export const DELTA_OPS: readonly StoreOp[] = [
  {
    kind: 'put',
    run: 'd',
    codec: 'auto',
    objects: [
      { name: 'w', byteLength: 40_002, seed: 31, weights: true },
      { name: 'x', byteLength: 14_000, seed: 32, weights: true },
      { name: 'y', byteLength: 3_000, seed: 33, weights: true },
      { name: 'z', byteLength: 3_002, seed: 34, weights: true },
    ],
  },
  { kind: 'delta', run: 'd', seed: 1 },
  { kind: 'remove', run: 'd', nth: 0 },
  { kind: 'delta', run: 'd', seed: 2 },
  { kind: 'remove', run: 'd', nth: 0 },
];

export function storeTarget(shape: StoreShape): CrashTarget<StoreOp> {
  return {
    name: `store of ${shape.members.length} members`,
    probe: { kind: 'put', run: 'probe', objects: [{ name: 'p', byteLength: 6000, seed: 77 }] },
    create: (io: SimIo): Promise<Session<StoreOp>> => StoreSession.create(io, shape, true),
    open: (io: SimIo): Promise<Session<StoreOp>> => StoreSession.open(io, shape),
    model: (ops) => StoreModel.after(ops).dump(),
    mayBeUnformatted: isUnformatted,
  };
}
