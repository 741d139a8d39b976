// Searching a page by guesses must find what a search along all its keys finds.
//
// Invariants
//   1. Every answer is compared with one that looks at each key in turn.
//   2. Keys are of the kinds that mislead a guess: long common beginnings, equal windows, keys that begin others.

import { test } from 'node:test';
import assert from 'node:assert/strict';
import { BranchPage, LeafPage } from '../../format/page.js';
import { encodeBranch, encodeLeaf } from '../../format/page_encode.js';
import { compareBytes } from '../../format/binary.js';
import { findChildBelow } from '../../engine/tree_page.js';

const FIELDS = { treeId: 1, birth: 3, storeUuid: new Uint8Array(16).fill(7) };

let state = 12_345;
const random = (below: number): number => {
  state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
};

function drawKey(kind: number): Uint8Array {
  const common = kind === 0 ? [] : [0, 1, 2, 255, 0, 0].slice(0, kind);
  const length = kind === 5 ? 8 : random(7);
  const rest = Array.from({ length }, () =>
    random(3) === 0 ? [0, 1, 127, 128, 255][random(5)]! : random(256),
  );
  if (kind === 5) rest.fill(0, 0, 5);
  // What comes after the words that a branch keeps, or at their edges, decides here.
  if (kind === 6)
    return Uint8Array.from([9, random(3), ...new Array<number>(random(24)).fill(random(2) * 128), ...rest]);
  return Uint8Array.from([...common, ...rest]);
}

function drawKeys(kind: number, count: number): Uint8Array[] {
  const sorted = Array.from({ length: count }, () => drawKey(kind)).sort(compareBytes);
  return sorted.filter(
    (key, index) => key.length > 0 && (index === 0 || compareBytes(sorted[index - 1]!, key) !== 0),
  );
}

test('a guess never changes what a search of a leaf finds', () => {
  for (let round = 0; round < 300; round += 1) {
    const kind = round % 7;
    const keys = drawKeys(kind, 1 + random(90));
    if (keys.length === 0) continue;
    const items = keys.map((key) => ({ key, value: new Uint8Array(3), isLarge: false }));
    const page = new LeafPage(encodeLeaf(items, FIELDS));
    for (const key of [...keys, ...Array.from({ length: 60 }, () => drawKey(random(7)))]) {
      const above = keys.findIndex((each) => compareBytes(each, key) >= 0);
      const place = above < 0 ? keys.length : above;
      const isThere = above >= 0 && compareBytes(keys[above]!, key) === 0;
      assert.equal(page.find(key), isThere ? place : ~place);
    }
  }
});

test('words of separators never change the child that a search of a branch takes', () => {
  const pointer = {
    sum: 1n,
    birth: 2,
    storedBytes: 4096,
    level: 0,
    kind: 1,
    copies: [{ member: 0, sector: 1_000_000 }],
  };
  for (let round = 0; round < 300; round += 1) {
    const separators = drawKeys(round % 7, random(90));
    const items = [new Uint8Array(0), ...separators].map((key) => ({ key, pointer }));
    const page = new BranchPage(encodeBranch(items, 1, FIELDS));
    for (const key of [...separators, ...Array.from({ length: 60 }, () => drawKey(random(7)))]) {
      const child = separators.filter((each) => compareBytes(each, key) <= 0).length;
      assert.equal(page.findChild(key), child);
      const below = separators.filter((each) => compareBytes(each, key) < 0).length;
      assert.equal(findChildBelow(page, key), below);
    }
  }
});
