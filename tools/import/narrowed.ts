// What a source becomes with --save-as bf16: its fp32 tensors half as long, under headers that say so.
//
// Invariants
//   1. Only F32 tensors change, and only in dtype and length; names, shapes and the header's own metadata stay.
//   2. The header is made anew in the reference order (writer.ts), so the stored file is a safetensors file like any
//      other and is exported byte for byte as it was stored. It is not the file that was imported.
//   3. Sidecars are kept as they are: what they say of sizes or types is not changed.
//
// Nothing is read or written here.

import type { SourceTensorFile } from '../safetensors/source.js';
import { layoutFile } from '../safetensors/writer.js';
import type { RoundedFile } from './verify_source.js';

/** Where the tensors of one file come from and go to. */
export interface FilePlan {
  readonly prefixBytes: Uint8Array;
  /** Offset in the stored file by name. */
  readonly fileOffset: ReadonlyMap<string, number>;
}

/** The file as it comes. */
export function planAsIs(file: SourceTensorFile): FilePlan {
  return {
    prefixBytes: file.prefixBytes,
    fileOffset: new Map(file.tensors.map(({ name, fileOffset }) => [name, fileOffset])),
  };
}

/** The file with its fp32 tensors as bf16. */
export function planNarrowed(file: SourceTensorFile): FilePlan {
  const tensors = file.tensors.map(({ name, dtype, shape }) => ({
    name,
    shape,
    dtype: dtype === 'F32' ? ('BF16' as const) : dtype,
  }));
  const metadata = file.metadata === null ? null : Object.fromEntries(file.metadata);
  const layout = layoutFile(tensors, metadata);
  return {
    prefixBytes: layout.prefixBytes,
    fileOffset: new Map(layout.tensors.map(({ name, fileOffset }) => [name, fileOffset])),
  };
}

/** How the stored file is made again from the source, to be compared. */
export function roundedFile(file: SourceTensorFile): RoundedFile {
  const { prefixBytes, fileOffset } = planNarrowed(file);
  const stored = (name: string): number => fileOffset.get(name) ?? 0;
  const tensors = [...file.tensors].sort((a, b) => stored(a.name) - stored(b.name));
  return {
    prefixBytes,
    tensors: tensors.map((tensor) => ({
      offsetBytes: tensor.fileOffset,
      byteLength: tensor.byteLength,
      narrows: tensor.dtype === 'F32',
    })),
  };
}
