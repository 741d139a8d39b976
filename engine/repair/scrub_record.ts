// Where a scrub is, in the catalog: one small record, so that it goes on after a crash, a pause or a restart.
//
// Invariants
//   1. The record is advice: a scrub that begins anew reads a little twice and misses nothing.
//   2. It is written with a root of its own, at most every SCRUB_RECORD_INTERVAL_MS and when the scrub ends.
//
// This file never reads data.

import { decodeJob, encodeJob, jobKey, JOB_SCRUB, type JobRecord } from '../../format/index.js';
import type { Catalog, CatalogView } from '../contract.js';

const TREE_MEMBERS = 4;

/** The scrub's record, or null when none ever ran. */
export async function readScrubRecord(view: CatalogView): Promise<JobRecord | null> {
  const found = view.get(TREE_MEMBERS, jobKey(JOB_SCRUB));
  const bytes = found instanceof Promise ? await found : found;
  return bytes === undefined ? null : decodeJob(bytes);
}

export async function writeScrubRecord(catalog: Catalog, record: JobRecord): Promise<void> {
  await catalog.commit((change) => change.put(TREE_MEMBERS, jobKey(JOB_SCRUB), encodeJob(record)));
}
