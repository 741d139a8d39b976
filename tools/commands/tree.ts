// ingot tree: what is in a version, as a tree of names with dtype, shape and size.
//
// Invariants
//   1. Every tensor and blob is accounted for: with --depth, what is folded shows how many objects and bytes it holds.

import type { Version } from '../../engine/index.js';
import { formatShape } from '../cli/output.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';
import { parseWhole } from '../cli/values.js';
import { refOf, summaryJson, tensorJson } from '../cli/views.js';

interface Options {
  readonly depth?: string;
}
interface Branch {
  readonly children: Map<string, Branch>;
  /** What a leaf is; null for an inner name. */
  label: string | null;
  bytes: number;
  leaves: number;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('tree')
    .description('show the tensors and blobs of a version')
    .argument('<ref>', 'run@tag, run@step, run or v:ID')
    .option('--depth <n>', 'levels of names to open (default: all)')
    .action(
      actions.action<Options>(async (session, [ref = ''], options) => {
        const depth =
          options.depth === undefined ? Number.POSITIVE_INFINITY : parseWhole('--depth', options.depth, 1);
        await session.withStore('r', async (store) => {
          const version = await store.get(ref, { signal: session.signal });
          session.out.object('ingot.tree/1', {
            ...summaryJson(version),
            tensors: version.tensors.map(tensorJson),
            blobs: version.blobNames.map((name) => {
              const { byteLength, contentType, checksum } = version.blob(name);
              return { name, rawBytes: byteLength, contentType, checksum };
            }),
            files: version.files.map(({ name, sizeBytes, sum, format, tensors }) => ({
              name,
              sizeBytes,
              crc64: sum,
              format,
              tensorCount: tensors.length,
            })),
          });
          for (const line of treeLines(version, depth)) session.out.line(line);
        });
        return undefined;
      }),
    );
};

/** The version as lines. `depth` levels of names are opened. */
export function treeLines(version: Version, depth: number): string[] {
  const root = emptyBranch();
  for (const { name, dtype, shape, byteLength } of version.tensors) {
    insert(root, name.split('.'), `${dtype} ${formatShape(shape)}`, byteLength);
  }
  const heading =
    `${version.run} ${refOf(version)}: ${version.tensorCount} tensors, ${version.blobCount} blobs, ` +
    formatBytes(version.byteLength);
  const lines = [heading];
  const blobs = version.blobNames.map((name) => ({ name, bytes: version.blob(name).byteLength }));
  draw(root, '', depth, blobs.length > 0, lines);
  blobs.forEach(({ name, bytes }, index) => {
    lines.push(`${index === blobs.length - 1 ? '└── ' : '├── '}${name}  blob  ${formatBytes(bytes)}`);
  });
  return lines;
}

const emptyBranch = (): Branch => ({ children: new Map(), label: null, bytes: 0, leaves: 0 });

function insert(root: Branch, parts: readonly string[], label: string, bytes: number): void {
  let branch = root;
  branch.bytes += bytes;
  branch.leaves++;
  for (const part of parts) {
    let child = branch.children.get(part);
    if (child === undefined) branch.children.set(part, (child = emptyBranch()));
    branch = child;
    branch.bytes += bytes;
    branch.leaves++;
  }
  branch.label = label;
}

function draw(branch: Branch, indent: string, depth: number, more: boolean, lines: string[]): void {
  const entries = [...branch.children];
  entries.forEach(([part, child], index) => {
    const last = index === entries.length - 1 && !more;
    let name = part;
    let node = child;
    // A chain without forks is one line.
    while (node.label === null && node.children.size === 1) {
      const [only] = node.children;
      if (only === undefined) break;
      name += `.${only[0]}`;
      node = only[1];
    }
    const here = `${indent}${last ? '└── ' : '├── '}${name}`;
    if (node.label !== null)
      lines.push(`${here}  ${node.label}  ${formatBytes(node.label === null ? 0 : node.bytes)}`);
    if (node.children.size === 0) return;
    if (node.label === null) {
      const folded = depth <= 1 ? `  ${node.leaves} tensors  ${formatBytes(node.bytes)}` : '';
      lines.push(`${here}${folded}`);
    }
    if (depth > 1) draw(node, `${indent}${last ? '    ' : '│   '}`, depth - 1, false, lines);
  });
}
