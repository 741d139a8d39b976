// Coded chunks: everything that others import of the codec.
//
// Invariants
//   1. Pure and synchronous, like all of format/.

export { codecOfStream, decodeChunk, encodeChunk } from './chunk.js';
export type { DecodeChunkOptions, EncodeChunkOptions } from './chunk.js';
export { directoryStretch, excerptOf } from './excerpt.js';
export type { Excerpt, Stretch } from './excerpt.js';
export {
  DELTA,
  DELTA_DEPTH_MAX,
  DELTA_NAMES,
  elementBytes,
  PLANE_CODEC,
  PLANE_CODEC_NAMES,
  TRANSFORM,
  TRANSFORM_NAMES,
  transformOfDtype,
} from './ids.js';
export { decodeLz4Block, encodeLz4Block } from './lz4_block.js';
export { PLANE_CODECS } from './registry.js';
export type { HostCodecs, PlaneCodecEntry } from './registry.js';
export { parseStream } from './stream.js';
export type { StreamHeader, StreamPlane } from './stream.js';
export { joinPlanes, splitPlanes } from './transforms.js';
