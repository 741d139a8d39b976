// The Python peers of `bench codec`: one process, asked by lines of JSON.
//
// Invariants
//   1. A peer that cannot be had, or does not give the bytes back, says why in place of figures.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const CHECKOUT = fileURLToPath(new URL('../../../', import.meta.url));
const PYTHON = join(CHECKOUT, '.venv', 'bin', 'python');
const SCRIPT = join(CHECKOUT, 'tools', 'bench', 'codec_peers.py');
export const PEER_NAMES = ['zstd -1', 'zstd -3', 'blosc2 shuffle + zstd', 'ZipNN', 'LZ4'] as const;
export type PeerName = (typeof PEER_NAMES)[number];
const HOW = 'python3 -m venv .venv && .venv/bin/pip install zstandard lz4 blosc2 zipnn';

export interface PeerOrder {
  readonly peer: PeerName;
  readonly path: string;
  readonly chunkBytes: number;
  readonly elementBytes: number;
  readonly dtype: string;
}
export type PeerAnswer =
  | { readonly error: string }
  | { readonly bytes: number; readonly encodeSeconds: number; readonly decodeSeconds: number };

export interface CodecPeers {
  /** Package and version, or why there is none. */
  readonly found: Readonly<Record<PeerName, { readonly version: string } | { readonly error: string }>>;
  ask(order: PeerOrder): Promise<PeerAnswer>;
  close(): void;
}

function none(error: string): CodecPeers {
  const found = Object.fromEntries(PEER_NAMES.map((name) => [name, { error }])) as CodecPeers['found'];
  return { found, ask: async () => ({ error }), close: () => undefined };
}

export async function startCodecPeers(): Promise<CodecPeers> {
  if (!existsSync(PYTHON)) return none(`no .venv; ${HOW}`);
  const child = spawn(PYTHON, [SCRIPT], { stdio: ['pipe', 'pipe', 'pipe'] });
  let complaint = '';
  child.stderr.on('data', (text: Buffer) => {
    complaint = (complaint + String(text)).slice(-500);
  });
  // An error of the pipe shows as the end of the answers.
  child.stdin.on('error', () => undefined);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const first = await lines.next();
  if (first.done === true) return none(`${complaint.trim().split('\n').at(-1) ?? ''}; ${HOW}`);
  return {
    found: JSON.parse(first.value) as CodecPeers['found'],
    ask: async (order) => {
      child.stdin.write(`${JSON.stringify(order)}\n`);
      const line = await lines.next();
      if (line.done === true) throw new Error(`the Python peers ended: ${complaint}`);
      return JSON.parse(line.value) as PeerAnswer;
    },
    close: () => child.stdin.end(),
  };
}
