// fsck: reads one durable root whole and says everything that is wrong with it. It never writes.
//
// Passes
//   superblocks   the four copies of the root's superblock on every member
//   space         every page (each of its copies), extent, sum leaf and deferred range claims its sectors; what is
//                 left must be exactly the free map: so both free maps, stored and rebuilt, are compared
//   records       runs, tags, steps, versions, manifests, extents and their counts agree with one another
//   data          with `data`: every segment of every copy of every extent matches its sum
//
// Invariants
//   1. Every finding names what is wrong and where; the last event is 'done'.
//   2. Memory is bounded by windows (fsck_space.ts, fsck_records.ts), whatever the store's size.
//   3. A store made and used without faults gives no finding.
//
// A live writer of the same process may commit meanwhile: the pinned root keeps what it reaches.

import type { Catalog } from './contract.js';
import { FsckContext, MAX_FINDINGS } from './fsck_context.js';
import type { FsckOptions } from './fsck_context.js';
import { checkSpace, checkSuperblocks } from './fsck_pages.js';
import { checkRecords } from './fsck_records.js';
import type { MaintEvent } from './types.js';
import { verifyExtents } from './verify_extents.js';

export type { FsckOptions } from './fsck_context.js';

/** One pass: yields after each bounded step, so that findings and progress flow. */
type Pass = AsyncGenerator<void, void, undefined>;

export async function* fsck(
  catalog: Catalog,
  options: FsckOptions = {},
): AsyncGenerator<MaintEvent, void, undefined> {
  const { clock } = catalog.io;
  const startMs = clock.monotonicMs();
  const context = new FsckContext(catalog, options);
  const passes: [string, (context: FsckContext) => Pass][] = [
    ['superblocks', checkSuperblocks],
    ['space', checkSpace],
    ['records', checkRecords],
  ];
  if (options.data === true) passes.push(['data', verifyExtents]);
  try {
    for (const [phase, pass] of passes) {
      let items = 0;
      try {
        for await (const _step of pass(context)) {
          options.signal?.throwIfAborted();
          items += 1;
          yield* context.takeFindings();
          yield progressEvent(context, phase, items, clock.monotonicMs() - startMs);
        }
      } catch (error) {
        context.incomplete = true;
        context.reportError(error, 'fatal', 'unrepairable');
      }
      yield* context.takeFindings();
    }
    if (context.findingCount > MAX_FINDINGS) {
      const more = context.findingCount - MAX_FINDINGS;
      context.report({
        severity: 'error',
        code: 'E_CORRUPT',
        message: `${more} more findings are not listed`,
      });
      yield* context.takeFindings();
    }
    yield {
      type: 'done',
      scannedBytes: context.scannedBytes,
      repaired: 0,
      unrepairable: context.unrepairable,
      durationMs: clock.monotonicMs() - startMs,
    };
  } finally {
    context.close();
  }
}

function progressEvent(context: FsckContext, phase: string, items: number, elapsedMs: number): MaintEvent {
  const bytesPerSec = elapsedMs > 0 ? context.scannedBytes / (elapsedMs / 1000) : 0;
  return {
    type: 'progress',
    progress: {
      phase,
      bytes: context.scannedBytes,
      totalBytes: null,
      items,
      totalItems: null,
      bytesPerSec,
      etaSec: null,
    },
  };
}
