// A made-up model in the layout of Hugging Face: sharded bf16 safetensors with Llama-3-8B shapes.
//
// It is what the quickstart and the benchmarks import when no real model is at hand, so it has to
// be like one: the shapes of the layers, the order of the tensors, and weights whose bits carry as
// much information as trained ones (drawn one by one from N(0, 0.02), never a repeated block).
//
// Invariants
//   1. The same sizeBytes, seed and shardBytes give the same bytes; a tensor's bytes depend on the
//      seed and its name alone.
//   2. The tensors take at most sizeBytes, except that the smallest model possible has one layer.
//   3. Memory is two buffers of BLOCK_BYTES, whatever the size.
//
// The generator is sfc32 (Chris Doty-Humphrey, PractRand); a value is a table look-up: 65,536
// quantiles of the normal distribution, rounded to bf16. No existing file is ever overwritten.

import { mkdir, open, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { StoreError } from '../format/errors.js';
import {
  DEFAULT_MAX_SHARD_BYTES,
  type Placed,
  planShards,
  type ShardPlan,
  type TensorToWrite,
} from './safetensors/writer.js';
import { sourceError } from './safetensors/walk.js';

/** Llama-3-8B, from its published config.json. */
const HIDDEN = 4096;
const KEY_VALUE = 1024;
const MLP = 14336;
const VOCABULARY = 128256;
const HEAD = 128;
const SIGMA = 0.02;
/** Scaling down stops here: hidden 32, vocabulary 1,002. */
const MAX_HALVINGS = 7;
const MAX_LAYERS = 16_384;
/** Bytes of one write. */
const BLOCK_BYTES = 4 * 1024 * 1024;
/** The default makes at least this many shards. */
const DEFAULT_SHARDS = 4;
const BF16_BYTES = 2;

export interface GenerateOptions {
  /** About how large the model is to be, bytes. */
  readonly sizeBytes: number;
  /** Any integer (default 1). */
  readonly seed?: number;
  /** Tensor bytes per shard (default: a quarter of the model, at most 5 GB). */
  readonly shardBytes?: number;
  readonly onProgress?: (progress: { readonly bytes: number; readonly totalBytes: number }) => void;
  readonly signal?: AbortSignal;
}
export interface GeneratedModel {
  readonly layers: number;
  readonly tensorCount: number;
  readonly tensorBytes: number;
  /** All files written, relative to the directory. */
  readonly fileNames: readonly string[];
}
interface Architecture {
  readonly halvings: number;
  readonly layers: number;
  /** Whether the output layer shares the embedding, as small Llama models do. */
  readonly tied: boolean;
}

/** The largest architecture whose bf16 tensors fit in `sizeBytes`. */
export function chooseArchitecture(sizeBytes: number): Architecture {
  for (let halvings = 0; ; halvings++) {
    const scale = 2 ** halvings;
    const hidden = HIDDEN / scale;
    const perLayer = tensorBytes(layerTensors(0, scale));
    const embedding = (VOCABULARY / scale) * hidden * BF16_BYTES;
    const norm = hidden * BF16_BYTES;
    // Two embeddings are worth their room only beside several layers.
    const tied = sizeBytes < 2 * embedding + norm + 4 * perLayer;
    const layers = Math.floor((sizeBytes - norm - embedding * (tied ? 1 : 2)) / perLayer);
    if (layers >= 1) return { halvings, layers: Math.min(layers, MAX_LAYERS), tied };
    if (halvings === MAX_HALVINGS) return { halvings, layers: 1, tied };
  }
}

function tensorBytes(tensors: readonly TensorToWrite[]): number {
  return tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, BF16_BYTES), 0);
}

function layerTensors(layer: number, scale: number): TensorToWrite[] {
  const [hidden, keyValue, mlp] = [HIDDEN / scale, KEY_VALUE / scale, MLP / scale];
  const shapes: readonly (readonly [string, readonly number[]])[] = [
    ['input_layernorm', [hidden]],
    ['mlp.down_proj', [hidden, mlp]],
    ['mlp.gate_proj', [mlp, hidden]],
    ['mlp.up_proj', [mlp, hidden]],
    ['post_attention_layernorm', [hidden]],
    ['self_attn.k_proj', [keyValue, hidden]],
    ['self_attn.o_proj', [hidden, hidden]],
    ['self_attn.q_proj', [hidden, hidden]],
    ['self_attn.v_proj', [keyValue, hidden]],
  ];
  return shapes.map(([part, shape]) => ({
    name: `model.layers.${layer}.${part}.weight`,
    dtype: 'BF16',
    shape,
  }));
}

function allTensors({ halvings, layers, tied }: Architecture): TensorToWrite[] {
  const scale = 2 ** halvings;
  const table = [VOCABULARY / scale, HIDDEN / scale];
  const tensors: TensorToWrite[] = [{ name: 'model.embed_tokens.weight', dtype: 'BF16', shape: table }];
  for (let layer = 0; layer < layers; layer++) tensors.push(...layerTensors(layer, scale));
  tensors.push({ name: 'model.norm.weight', dtype: 'BF16', shape: [HIDDEN / scale] });
  if (!tied) tensors.push({ name: 'lm_head.weight', dtype: 'BF16', shape: table });
  return tensors;
}

/**
 * Writes a model into `directory`, which is made when missing. E_EXISTS when it is not empty,
 * E_NO_SPACE when the disk is full. The files are not flushed.
 */
export async function generateModel(directory: string, options: GenerateOptions): Promise<GeneratedModel> {
  const { sizeBytes, seed = 1 } = options;
  if (!(sizeBytes > 0)) throw new StoreError('E_USAGE', 'A model needs a size above 0 bytes.');
  const architecture = chooseArchitecture(sizeBytes);
  const tensors = allTensors(architecture);
  const total = tensorBytes(tensors);
  const defaultShard = Math.min(DEFAULT_MAX_SHARD_BYTES, Math.ceil(total / DEFAULT_SHARDS));
  const plan = planShards(tensors, {
    maxShardBytes: options.shardBytes ?? defaultShard,
    metadata: { format: 'pt' },
  });
  try {
    await mkdir(directory, { recursive: true });
    if ((await readdir(directory)).length > 0) {
      const next = 'Name another directory, or remove this one.';
      throw new StoreError('E_EXISTS', `${directory} is not empty.`, { where: { file: directory }, next });
    }
    const small = smallFiles(architecture, plan, seed);
    for (const { name, bytes } of small) await writeFile(join(directory, name), bytes, { flag: 'wx' });
    const writer = new TensorWriter(seed, total, options);
    for (const shard of plan.shards) {
      await writer.writeFile(join(directory, shard.fileName), shard.layout.prefixBytes, shard.layout.tensors);
    }
    const fileNames = [
      ...small.map(({ name }) => name),
      ...plan.shards.map(({ fileName }) => fileName),
    ].sort();
    return { layers: architecture.layers, tensorCount: tensors.length, tensorBytes: total, fileNames };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw sourceError(error, directory);
    const next = 'Free some space, or ask for a smaller model.';
    const where = { file: directory };
    throw new StoreError('E_NO_SPACE', `The disk filled up under ${directory}.`, {
      cause: error,
      where,
      next,
    });
  }
}

/** Fills two buffers in turn: one is written while the next is made. */
class TensorWriter {
  readonly #seed: number;
  readonly #totalBytes: number;
  readonly #options: GenerateOptions;
  readonly #blocks = [new Uint32Array(BLOCK_BYTES / 4), new Uint32Array(BLOCK_BYTES / 4)];
  readonly #weights = normalTable(0, SIGMA);
  readonly #norms = normalTable(0.5, 0.05);
  #doneBytes = 0;
  #turn = 0;

  constructor(seed: number, totalBytes: number, options: GenerateOptions) {
    this.#seed = seed;
    this.#totalBytes = totalBytes;
    this.#options = options;
  }

  async writeFile(
    path: string,
    prefix: Uint8Array,
    tensors: readonly Placed<TensorToWrite>[],
  ): Promise<void> {
    const handle = await open(path, 'wx');
    let pending: Promise<void> = Promise.resolve();
    try {
      await writeFully(handle, prefix, 0);
      for (const tensor of tensors) {
        const random = new Random(this.#seed, tensor.name);
        const table = tensor.shape.length === 1 ? this.#norms : this.#weights;
        for (let at = 0; at < tensor.byteLength; at += BLOCK_BYTES) {
          this.#options.signal?.throwIfAborted();
          const block = this.#blocks[this.#turn++ % 2]!;
          const bytes = Math.min(BLOCK_BYTES, tensor.byteLength - at);
          random.fill(block, Math.ceil(bytes / 4), table);
          await pending;
          pending = writeFully(handle, new Uint8Array(block.buffer, 0, bytes), tensor.fileOffset + at);
          pending.catch(() => {});
          this.#doneBytes += bytes;
          this.#options.onProgress?.({ bytes: this.#doneBytes, totalBytes: this.#totalBytes });
        }
      }
    } finally {
      try {
        await pending;
      } finally {
        await handle.close();
      }
    }
  }
}

async function writeFully(
  handle: { write(b: Uint8Array, o: number, l: number, p: number): Promise<{ bytesWritten: number }> },
  bytes: Uint8Array,
  position: number,
): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.byteLength - done, position + done);
    done += bytesWritten;
  }
}

/** sfc32, seeded with a seed and a name. */
class Random {
  #a: number;
  #b: number;
  #c = 0x9e3779b9 | 0;
  #counter = 1;

  constructor(seed: number, name: string) {
    // FNV-1a over the name, so that the tensor and not its place decides.
    let hash = 0x811c9dc5;
    for (const byte of Buffer.from(name)) hash = Math.imul(hash ^ byte, 0x01000193);
    this.#a = seed | 0;
    this.#b = hash | 0;
    const warmUp = new Uint32Array(16);
    this.fill(warmUp, warmUp.length, new Uint16Array(65_536));
  }

  /** `count` words, two bf16 values each. State is kept in locals: this loop is the generator's cost. */
  fill(words: Uint32Array, count: number, table: Uint16Array): void {
    let a = this.#a;
    let b = this.#b;
    let c = this.#c;
    let counter = this.#counter;
    for (let index = 0; index < count; index++) {
      const sum = (((a + b) | 0) + counter) | 0;
      counter = (counter + 1) | 0;
      a = b ^ (b >>> 9);
      b = (c + (c << 3)) | 0;
      c = (((c << 21) | (c >>> 11)) + sum) | 0;
      words[index] = table[sum & 0xffff]! | (table[sum >>> 16]! << 16);
    }
    this.#a = a;
    this.#b = b;
    this.#c = c;
    this.#counter = counter;
  }
}

/** bf16 of the quantiles (i + 1/2) / 65,536 of N(mean, sigma). */
function normalTable(mean: number, sigma: number): Uint16Array {
  const quantiles = upperQuantiles(32_768);
  const table = new Uint16Array(65_536);
  const single = new Float32Array(1);
  const bits = new Uint32Array(single.buffer);
  const set = (index: number, value: number) => {
    single[0] = value;
    const raw = bits[0]!;
    // Round to nearest, ties to even, as frameworks do.
    table[index] = (raw + 0x7fff + ((raw >>> 16) & 1)) >>> 16;
  };
  quantiles.forEach((quantile, index) => {
    set(32_768 + index, mean + sigma * quantile);
    set(32_767 - index, mean - sigma * quantile);
  });
  return table;
}

/**
 * The normal quantiles at 1/2 + (i + 1/2) / (2 count). The quantile function solves
 * dx/dp = sqrt(2 pi) exp(x^2 / 2) with x(1/2) = 0, so Runge-Kutta walks it outwards.
 */
function upperQuantiles(count: number): Float64Array {
  const slope = (x: number) => Math.sqrt(2 * Math.PI) * Math.exp((x * x) / 2);
  const quantiles = new Float64Array(count);
  let x = 0;
  for (let index = 0; index < count; index++) {
    const step = (index === 0 ? 0.25 : 0.5) / count;
    const k1 = slope(x);
    const k2 = slope(x + (step / 2) * k1);
    const k3 = slope(x + (step / 2) * k2);
    const k4 = slope(x + step * k3);
    x += (step / 6) * (k1 + 2 * k2 + 2 * k3 + k4);
    quantiles[index] = x;
  }
  return quantiles;
}

function smallFiles(architecture: Architecture, plan: ShardPlan<TensorToWrite>, seed: number) {
  const scale = 2 ** architecture.halvings;
  const hidden = HIDDEN / scale;
  const json = (value: unknown) => Buffer.from(`${JSON.stringify(value, null, 2)}\n`);
  const config = {
    architectures: ['LlamaForCausalLM'],
    bos_token_id: 0,
    eos_token_id: 1,
    hidden_act: 'silu',
    hidden_size: hidden,
    initializer_range: SIGMA,
    intermediate_size: MLP / scale,
    max_position_embeddings: 8192,
    model_type: 'llama',
    num_attention_heads: Math.max(4, hidden / HEAD),
    num_hidden_layers: architecture.layers,
    num_key_value_heads: Math.max(1, KEY_VALUE / scale / HEAD),
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    tie_word_embeddings: architecture.tied,
    torch_dtype: 'bfloat16',
    vocab_size: VOCABULARY / scale,
  };
  const vocabulary: Record<string, number> = { '<s>': 0, '</s>': 1 };
  for (let code = 0x20; code < 0x7f; code++) vocabulary[String.fromCharCode(code)] = code - 0x1e;
  const files = [
    { name: 'config.json', bytes: json(config) },
    { name: 'generation_config.json', bytes: json({ bos_token_id: 0, eos_token_id: 1, do_sample: true }) },
    {
      name: 'tokenizer.json',
      bytes: json({ version: '1.0', model: { type: 'BPE', vocab: vocabulary, merges: [] } }),
    },
    {
      name: 'README.md',
      bytes: Buffer.from(
        `# A made-up model\n\nRandom weights with the shapes of Llama 3 8B (seed ${seed}). It says nothing sensible.\n`,
      ),
    },
  ];
  if (plan.index !== null) files.push({ name: plan.index.fileName, bytes: Buffer.from(plan.index.bytes) });
  return files;
}
