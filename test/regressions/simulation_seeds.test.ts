// Seeds of the random simulator that once failed, each with what it found. A bug is closed with its seed here.
//
//   39, 45, 88   the simulator laid an old, failed write over newer durable bytes (test/sim/sim_disk.ts, superseded)
//   86, 117      a misdirected write in flight was taken for two overlapping writes of the engine
//   17           rewinding met a root whose flush had failed before it was taken up (test/sim/rewind.ts)
//   5122, 5289   a killed process that went on to its next step took a lock (test/sim/sim_io.ts)
//   20380, 20483 a reopen trusted a root whose flush had failed, and a power cut took it away (engine/catalog.ts)
//   243          a late write error of a killed process reached the next open's flush
//   157          the judge asked for a member that had failed in the very root that took it in (members.md M12)
//   638, 729     rewinding met a root all of whose superblocks a failed flush had left in doubt (test/sim/rewind.ts)
//   3153, 3238   a member that failed while a root was made was in that root's table, unflushed (engine/commit.ts)
//   663, 1157, 1249  a member that was asked to stay after all owed no copies of what had been written meanwhile
//
// Those of the first list failed before there were codecs, so they run without: the same histories, event by event.
// And once more as seeds run today, with coded versions, whose shorter writes move every later event.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runJobs } from '../sim/jobs.js';

/** Of histories as they are drawn since decisions/0023. */
const LATER_SEEDS = [157, 638, 663, 729, 1157, 1249, 3153, 3238];
const SEEDS = [17, 39, 45, 86, 88, 117, 243, 5122, 5289, 20380, 20483];

test('seeds that once failed hold', async () => {
  const reports = await runJobs(
    [
      ...SEEDS.flatMap((from) =>
        [true, false].map((raw) => ({ kind: 'simulate' as const, from, count: 1, raw })),
      ),
      ...LATER_SEEDS.map((from) => ({ kind: 'simulate' as const, from, count: 1 })),
    ],
    2,
  );
  assert.deepEqual(
    reports.flatMap((report) => report.violations),
    [],
  );
});
