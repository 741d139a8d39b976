// ingot diff: what differs between two versions, judged by the sums that both carry. No tensor is read.
//
// Invariants
//   1. Each name of either version is in exactly one class: same, changed, only in A, only in B.
//   2. The exit code is 0 whether or not they differ; `--json` has `identical`.

import type { Version } from '../../engine/index.js';
import { formatShape, hexSum } from '../cli/output.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';

interface Item {
  readonly kind: 'tensor' | 'blob';
  readonly name: string;
  readonly what: string;
  readonly bytes: number;
  readonly sum: string;
}
interface Change {
  readonly kind: 'tensor' | 'blob';
  readonly name: string;
  readonly a: string;
  readonly b: string;
  readonly bytes: boolean;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('diff')
    .description('compare two versions by their sums')
    .argument('<a>', 'a ref')
    .argument('<b>', 'a ref')
    .action(
      actions.action<object>(async (session, [a = '', b = '']) => {
        await session.withStore('r', async (store) => {
          const left = itemsOf(await store.get(a, { signal: session.signal }));
          const right = itemsOf(await store.get(b, { signal: session.signal }));
          const onlyA = [...left.values()].filter((item) => !right.has(keyOf(item)));
          const onlyB = [...right.values()].filter((item) => !left.has(keyOf(item)));
          const changed: Change[] = [];
          let same = 0;
          for (const [key, item] of left) {
            const other = right.get(key);
            if (other === undefined) continue;
            if (item.what === other.what && item.sum === other.sum && item.bytes === other.bytes) same++;
            else
              changed.push({
                kind: item.kind,
                name: item.name,
                a: item.what,
                b: other.what,
                bytes: item.sum !== other.sum,
              });
          }
          const named = ({ kind, name }: Item): object => ({ kind, name });
          session.out.object('ingot.diff/1', {
            a,
            b,
            identical: onlyA.length + onlyB.length + changed.length === 0,
            same,
            onlyA: onlyA.map(named),
            onlyB: onlyB.map(named),
            changed,
          });
          for (const item of onlyA)
            session.out.line(`- ${item.name}  ${item.what}  ${formatBytes(item.bytes)}`);
          for (const item of onlyB)
            session.out.line(`+ ${item.name}  ${item.what}  ${formatBytes(item.bytes)}`);
          for (const change of changed) {
            const how = change.a === change.b ? 'other bytes' : `${change.a} -> ${change.b}`;
            session.out.line(`~ ${change.name}  ${how}`);
          }
          session.out.line(
            `${same} same, ${changed.length} changed, ${onlyA.length} only in ${a}, ${onlyB.length} only in ${b}`,
          );
        });
        return undefined;
      }),
    );
};

const keyOf = (item: Item): string => `${item.kind}/${item.name}`;
const sumText = (checksum: Uint8Array): string => hexSum(Buffer.from(checksum).readBigUInt64BE());

function itemsOf(version: Version): Map<string, Item> {
  const items = version.tensors.map(
    ({ name, dtype, shape, byteLength, checksum }): Item => ({
      kind: 'tensor',
      name,
      what: `${dtype} ${formatShape(shape)}`,
      bytes: byteLength,
      sum: sumText(checksum),
    }),
  );
  for (const name of version.blobNames) {
    const { byteLength, checksum } = version.blob(name);
    items.push({ kind: 'blob', name, what: 'blob', bytes: byteLength, sum: sumText(checksum) });
  }
  return new Map(items.map((item) => [keyOf(item), item]));
}
