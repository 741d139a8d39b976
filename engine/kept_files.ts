// Which files of its base a version keeps, so that what was imported can still be exported byte for byte.
//
// Invariants
//   1. A file of tensors is kept when every one of its tensors is in the version, under its name, with its dtype and
//      shape, and nobody gave it to another file. Then each has the place that it had, and the file no gap.
//   2. With `linkAll` a tensor that was put anew counts as well: it takes the place of the old one, and the file gets
//      the sum of what it now holds. With `link` alone only linked tensors count, so that a version whose tensors are
//      all new never claims to have files of another.
//   3. A file that is a blob is kept, with `linkAll`, while its blob is the base's.
//   4. A file that the transaction names itself goes before one of the base.
//
// It reads no bytes and never names an object.

import type { File, Tensor } from '../format/index.js';
import { FILE_OF_TENSORS, type ObjectDraft } from './object_draft.js';
import type { Version } from './version.js';
import type { VersionDraft } from './version_draft.js';

/** Adds the kept files of `base` to `drafts`. Every object must have been named. */
export function keepFiles(base: Version, drafts: VersionDraft): void {
  const { files, tensors, blobs } = base.manifest;
  if (files.length === 0) return;
  const taken = new Set(drafts.files.map(({ name }) => name));
  const blobOf = new Map(blobs.map((blob) => [blob.name, blob]));
  const tensorsOf: Tensor[][] = files.map(() => []);
  for (const tensor of tensors) tensorsOf[tensor.fileIndex]?.push(tensor);
  for (const [index, file] of files.entries()) {
    if (taken.has(file.name)) continue;
    if (file.format === FILE_OF_TENSORS) keepTensors(drafts, file, tensorsOf[index] ?? []);
    else if (drafts.linksAll && drafts.blobs.get(file.name)?.linked === blobOf.get(file.name)?.pieces)
      drafts.files.push({ name: file.name, prefix: null, mode: file.mode });
  }
}

function keepTensors(drafts: VersionDraft, file: File, records: readonly Tensor[]): void {
  const kept: ObjectDraft[] = [];
  for (const record of records) {
    const draft = drafts.tensors.get(record.name);
    if (draft === undefined || draft.fileIndex >= 0 || !sameLayout(draft, record)) return;
    // A link holds the very list of pieces of the record that it was made from.
    if (!drafts.linksAll && draft.linked !== record.pieces) return;
    kept.push(draft);
  }
  if (kept.length === 0 && !drafts.linksAll) return;
  const fileIndex = drafts.files.push({ name: file.name, prefix: file.prefix, mode: file.mode }) - 1;
  for (const [at, draft] of kept.entries()) {
    draft.fileIndex = fileIndex;
    draft.fileOffset = records[at]?.fileOffset ?? 0;
  }
}

function sameLayout(draft: ObjectDraft, record: Tensor): boolean {
  return (
    draft.dtypeCode === record.dtype &&
    draft.shape.length === record.shape.length &&
    draft.shape.every((size, axis) => size === record.shape[axis])
  );
}
