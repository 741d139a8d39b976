// The manifest of a version (spec/catalog.fbs `Manifest`; format.md F16, F17): its tensors, blobs and files.
//
// Invariants
//   1. A decoded tensor's size is that of its dtype and shape, and its pieces, or inline bytes, cover it exactly.
//   2. Names are valid and unique within tensors, blobs and files; file indexes name a file of the manifest.
//   3. Decoding is linear: 100,000 tensors take well under half a second.
//   4. What is encoded is asserted to obey the same rules.
//
// It knows nothing of extents but their ids.

import { Builder } from 'flatbuffers';
import type { FormatContext } from './binary.js';
import { readU32, readU64, refuse } from './binary.js';
import { Blob as BlobTable } from './catalog/blob.js';
import { File as FileTable } from './catalog/file.js';
import { Manifest as ManifestTable } from './catalog/manifest.js';
import { Piece as PieceStruct } from './catalog/piece.js';
import { BLOB_FIELD, FILE_FIELD, MANIFEST_FIELD, TENSOR_FIELD } from './catalog/schema.gen.js';
import { Tensor as TensorTable } from './catalog/tensor.js';
import { dtypeOfCode, tensorByteLength } from './dtype.js';
import { assert, isStoreError } from './errors.js';
import { TableCursor } from './flatbuffer_reader.js';
import { verifyRecord } from './flatbuffer_verifier.js';
import { objectNameProblem } from './keys.js';
import { EXTENT_BYTES_MAX, INLINE_OBJECT_BYTES_MAX, LARGE_VALUE_BYTES_MAX } from './limits.js';

export const MANIFEST_IDENTIFIER = 'IGMF';
export const FILE_FORMAT_BLOB = 0;
export const FILE_FORMAT_SAFETENSORS = 1;
const PIECE_BYTES = 16;
const BUILDER_BYTES = 64 * 1_024;
/** Manifests of up to so many objects, of which there may be a million, share one builder and its memory. */
const SMALL_OBJECTS = 16;
const smallBuilder = new Builder(4_096);

/** A stretch of an object inside one extent's raw bytes. */
export interface Piece {
  readonly extentId: number;
  readonly rawOffset: number;
  readonly rawBytes: number;
}
interface ObjectBody {
  readonly name: string;
  readonly rawBytes: number;
  /** CRC-64/NVME of all its bytes. */
  readonly rawSum: bigint;
  /** The bytes themselves when there are no pieces. */
  readonly inlineBytes: Uint8Array;
  readonly pieces: readonly Piece[];
  /** Index into the manifest's files, -1 none. */
  readonly fileIndex: number;
}
export interface Tensor extends ObjectBody {
  /** On-disk code (dtype.ts). */
  readonly dtype: number;
  readonly shape: readonly number[];
  /** From the first byte of the file. */
  readonly fileOffset: number;
}
export interface Blob extends ObjectBody {
  readonly contentType: string | null;
}
export interface File {
  /** Relative path with '/'. */
  readonly name: string;
  readonly sizeBytes: number;
  readonly sum: bigint;
  /** FILE_FORMAT_BLOB or FILE_FORMAT_SAFETENSORS. */
  readonly format: number;
  /** The first bytes verbatim (safetensors), else empty. */
  readonly prefix: Uint8Array;
  readonly mode: number;
}
export interface Manifest {
  /** In on-disk order. */
  readonly tensors: readonly Tensor[];
  readonly blobs: readonly Blob[];
  readonly files: readonly File[];
}

/** Which rule a tensor or blob breaks, or null. */
function bodyProblem(body: ObjectBody, fileCount: number): string | null {
  const name = objectNameProblem(body.name);
  if (name !== null) return `name ${name}`;
  if (!(body.fileIndex >= -1 && body.fileIndex < fileCount))
    return `fileIndex is ${body.fileIndex} of ${fileCount}`;
  if (body.pieces.length === 0) {
    if (body.rawBytes > INLINE_OBJECT_BYTES_MAX) return `${body.rawBytes} bytes without pieces`;
    return body.inlineBytes.length === body.rawBytes
      ? null
      : `${body.inlineBytes.length} inline bytes of ${body.rawBytes}`;
  }
  if (body.inlineBytes.length !== 0) return 'has pieces and inline bytes';
  let covered = 0;
  for (const piece of body.pieces) {
    if (
      !(piece.extentId >= 1) ||
      !(piece.rawBytes >= 1) ||
      !(piece.rawOffset + piece.rawBytes <= EXTENT_BYTES_MAX)
    ) {
      return `piece of extent ${piece.extentId} at ${piece.rawOffset}+${piece.rawBytes}`;
    }
    covered += piece.rawBytes;
  }
  return covered === body.rawBytes ? null : `pieces cover ${covered} bytes of ${body.rawBytes}`;
}

function tensorProblem(tensor: Tensor, fileCount: number): string | null {
  const dtype = dtypeOfCode(tensor.dtype);
  if (dtype === null) return `dtype is ${tensor.dtype}`;
  if (tensor.fileIndex < 0 && tensor.fileOffset !== 0) return 'fileOffset without a file';
  let bytes: number;
  try {
    bytes = tensorByteLength(dtype, tensor.shape);
  } catch (error) {
    if (isStoreError(error)) return `shape: ${error.message}`;
    throw error;
  }
  if (bytes !== tensor.rawBytes) return `rawBytes is ${tensor.rawBytes}, the shape has ${bytes}`;
  return bodyProblem(tensor, fileCount);
}

/** Why a file cannot have this name, or null: file names are object names and relative paths. */
export function fileNameProblem(name: string): string | null {
  const problem = objectNameProblem(name);
  if (problem !== null) return problem;
  const parts = name.split('/');
  return parts.some((part) => part === '' || part === '.' || part === '..') ? 'is no relative path' : null;
}

function fileProblem(file: File): string | null {
  const name = fileNameProblem(file.name);
  if (name !== null) return `name ${name}`;
  if (file.format !== FILE_FORMAT_BLOB && file.format !== FILE_FORMAT_SAFETENSORS)
    return `format is ${file.format}`;
  if (file.format === FILE_FORMAT_BLOB && file.prefix.length !== 0) return 'a blob file has a prefix';
  if (file.format === FILE_FORMAT_SAFETENSORS && file.prefix.length < 8)
    return 'a safetensors file has no header length';
  return file.prefix.length <= file.sizeBytes ? null : `sizeBytes is ${file.sizeBytes}, less than the prefix`;
}

/** The first thing wrong with a manifest, as field and clause, or null. */
function manifestProblem(manifest: Manifest): { readonly field: string; readonly message: string } | null {
  const fileCount = manifest.files.length;
  const scan = <T extends { readonly name: string }>(
    items: readonly T[],
    field: string,
    judge: (item: T) => string | null,
  ): { field: string; message: string } | null => {
    const names = new Set<string>();
    for (let index = 0; index < items.length; index += 1) {
      const item = items[index]!;
      const problem = names.has(item.name) ? 'name is taken twice' : judge(item);
      if (problem !== null) return { field: `${field}[${index}]`, message: problem };
      names.add(item.name);
    }
    return null;
  };
  return (
    scan(manifest.files, 'files', fileProblem) ??
    scan(manifest.tensors, 'tensors', (tensor) => tensorProblem(tensor, fileCount)) ??
    scan(manifest.blobs, 'blobs', (blob) => bodyProblem(blob, fileCount))
  );
}

function encodePieces(builder: Builder, pieces: readonly Piece[]): number {
  if (pieces.length === 0) return 0;
  TensorTable.startPiecesVector(builder, pieces.length);
  for (let index = pieces.length - 1; index >= 0; index -= 1) {
    const piece = pieces[index]!;
    PieceStruct.createPiece(builder, BigInt(piece.extentId), piece.rawOffset, piece.rawBytes);
  }
  return builder.endVector();
}

function encodeBytes(builder: Builder, bytes: Uint8Array): number {
  return bytes.length === 0 ? 0 : builder.createByteVector(bytes);
}

function encodeShape(builder: Builder, shape: readonly number[]): number {
  if (shape.length === 0) return 0;
  TensorTable.startShapeVector(builder, shape.length);
  for (let index = shape.length - 1; index >= 0; index -= 1) builder.addInt64(BigInt(shape[index]!));
  return builder.endVector();
}

function encodeTensor(builder: Builder, tensor: Tensor): number {
  const name = builder.createString(tensor.name);
  const shape = encodeShape(builder, tensor.shape);
  const inline = encodeBytes(builder, tensor.inlineBytes);
  const pieces = encodePieces(builder, tensor.pieces);
  TensorTable.startTensor(builder);
  TensorTable.addRawBytes(builder, BigInt(tensor.rawBytes));
  TensorTable.addRawSum(builder, tensor.rawSum);
  TensorTable.addFileOffset(builder, BigInt(tensor.fileOffset));
  TensorTable.addName(builder, name);
  if (shape !== 0) TensorTable.addShape(builder, shape);
  if (inline !== 0) TensorTable.addInlineBytes(builder, inline);
  if (pieces !== 0) TensorTable.addPieces(builder, pieces);
  TensorTable.addFileIndex(builder, tensor.fileIndex);
  TensorTable.addDtype(builder, tensor.dtype);
  return TensorTable.endTensor(builder);
}

function encodeBlob(builder: Builder, blob: Blob): number {
  const name = builder.createString(blob.name);
  const contentType = blob.contentType === null ? 0 : builder.createString(blob.contentType);
  const inline = encodeBytes(builder, blob.inlineBytes);
  const pieces = encodePieces(builder, blob.pieces);
  BlobTable.startBlob(builder);
  BlobTable.addRawBytes(builder, BigInt(blob.rawBytes));
  BlobTable.addRawSum(builder, blob.rawSum);
  BlobTable.addName(builder, name);
  if (contentType !== 0) BlobTable.addContentType(builder, contentType);
  if (inline !== 0) BlobTable.addInlineBytes(builder, inline);
  if (pieces !== 0) BlobTable.addPieces(builder, pieces);
  BlobTable.addFileIndex(builder, blob.fileIndex);
  return BlobTable.endBlob(builder);
}

function encodeFile(builder: Builder, file: File): number {
  const name = builder.createString(file.name);
  const prefix = encodeBytes(builder, file.prefix);
  FileTable.startFile(builder);
  FileTable.addSizeBytes(builder, BigInt(file.sizeBytes));
  FileTable.addSum(builder, file.sum);
  FileTable.addName(builder, name);
  if (prefix !== 0) FileTable.addPrefix(builder, prefix);
  FileTable.addMode(builder, file.mode);
  FileTable.addFormat(builder, file.format);
  return FileTable.endFile(builder);
}

export function encodeManifest(manifest: Manifest): Uint8Array {
  const problem = manifestProblem(manifest);
  assert(problem === null, `a manifest obeys F16 and F17: ${problem?.field ?? ''} ${problem?.message ?? ''}`);
  const objects = manifest.tensors.length + manifest.blobs.length + manifest.files.length;
  const builder = objects <= SMALL_OBJECTS ? smallBuilder : new Builder(BUILDER_BYTES);
  builder.clear();
  const tensorPlaces = manifest.tensors.map((tensor) => encodeTensor(builder, tensor));
  const blobPlaces = manifest.blobs.map((blob) => encodeBlob(builder, blob));
  const filePlaces = manifest.files.map((file) => encodeFile(builder, file));
  const tensors = tensorPlaces.length === 0 ? 0 : ManifestTable.createTensorsVector(builder, tensorPlaces);
  const blobs = blobPlaces.length === 0 ? 0 : ManifestTable.createBlobsVector(builder, blobPlaces);
  const files = filePlaces.length === 0 ? 0 : ManifestTable.createFilesVector(builder, filePlaces);
  ManifestTable.startManifest(builder);
  if (tensors !== 0) ManifestTable.addTensors(builder, tensors);
  if (blobs !== 0) ManifestTable.addBlobs(builder, blobs);
  if (files !== 0) ManifestTable.addFiles(builder, files);
  builder.finish(ManifestTable.endManifest(builder), MANIFEST_IDENTIFIER);
  const bytes = builder.asUint8Array().slice();
  assert(bytes.length <= LARGE_VALUE_BYTES_MAX, 'a manifest has at most 512 MiB');
  return bytes;
}

function decodePieces(cursor: TableCursor, field: number, where?: FormatContext): Piece[] {
  const start = cursor.vector(field);
  const count = cursor.count(field);
  const pieces: Piece[] = [];
  for (let index = 0; index < count; index += 1) {
    const at = start + index * PIECE_BYTES;
    pieces.push({
      extentId: readU64(cursor.bytes, at, 'Piece', 'extentId', where),
      rawOffset: readU32(cursor.bytes, at + 8),
      rawBytes: readU32(cursor.bytes, at + 12),
    });
  }
  return pieces;
}

function decodeTensor(cursor: TableCursor, where?: FormatContext): Tensor {
  const F = TENSOR_FIELD;
  if (cursor.count(F.GLOBAL_SHAPE) !== 0 || cursor.count(F.SLICE_START) !== 0) {
    refuse(where, 'Tensor', 'reserved', 'sharded tensors are not in version 1.0');
  }
  return {
    name: cursor.text(F.NAME) ?? '',
    dtype: cursor.u8(F.DTYPE),
    shape: cursor.u64Vector(F.SHAPE, 'shape'),
    rawBytes: cursor.u64(F.RAW_BYTES, 'rawBytes'),
    rawSum: cursor.sum(F.RAW_SUM),
    inlineBytes: cursor.byteVector(F.INLINE_BYTES),
    pieces: decodePieces(cursor, F.PIECES, where),
    fileIndex: cursor.i32(F.FILE_INDEX, -1),
    fileOffset: cursor.u64(F.FILE_OFFSET, 'fileOffset'),
  };
}

function decodeBlob(cursor: TableCursor, where?: FormatContext): Blob {
  const F = BLOB_FIELD;
  return {
    name: cursor.text(F.NAME) ?? '',
    contentType: cursor.text(F.CONTENT_TYPE),
    rawBytes: cursor.u64(F.RAW_BYTES, 'rawBytes'),
    rawSum: cursor.sum(F.RAW_SUM),
    inlineBytes: cursor.byteVector(F.INLINE_BYTES),
    pieces: decodePieces(cursor, F.PIECES, where),
    fileIndex: cursor.i32(F.FILE_INDEX, -1),
  };
}

function decodeFile(cursor: TableCursor): File {
  const F = FILE_FIELD;
  return {
    name: cursor.text(F.NAME) ?? '',
    sizeBytes: cursor.u64(F.SIZE_BYTES, 'sizeBytes'),
    sum: cursor.sum(F.SUM),
    format: cursor.u8(F.FORMAT),
    prefix: cursor.byteVector(F.PREFIX),
    mode: cursor.u32(F.MODE),
  };
}

/** Errors: E_FORMAT, E_RANGE. */
export function decodeManifest(bytes: Uint8Array, where?: FormatContext): Manifest {
  const root = verifyRecord(bytes, 'Manifest', MANIFEST_IDENTIFIER, where);
  const manifestCursor = new TableCursor(bytes, root, 'Manifest', where);
  if (manifestCursor.count(MANIFEST_FIELD.RECORD_SETS) !== 0) {
    refuse(where, 'Manifest', 'recordSets', 'datasets are not in version 1.0');
  }
  const each = <T>(field: number, decode: (cursor: TableCursor) => T): T[] => {
    const start = manifestCursor.vector(field);
    const count = manifestCursor.count(field);
    const cursor = new TableCursor(bytes, root, 'Manifest', where);
    const items: T[] = [];
    for (let index = 0; index < count; index += 1) {
      items.push(decode(cursor.open(manifestCursor.tableAt(start, index))));
    }
    return items;
  };
  const manifest: Manifest = {
    tensors: each(MANIFEST_FIELD.TENSORS, (cursor) => decodeTensor(cursor, where)),
    blobs: each(MANIFEST_FIELD.BLOBS, (cursor) => decodeBlob(cursor, where)),
    files: each(MANIFEST_FIELD.FILES, decodeFile),
  };
  const problem = manifestProblem(manifest);
  if (problem !== null) refuse(where, 'Manifest', problem.field, problem.message);
  return manifest;
}
