// docs/errors.md against format/errors.ts: every code has its section, and no section is left over.
//
// A user who meets a code is sent to that page; a code without an answer there is a broken promise.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { STORE_ERROR_CODES } from '../../format/errors.js';

// dist/test/unit/errors_doc.test.js: the checkout is three directories up.
const ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const PARTS = ['**What happened.**', '**What is safe.**', '**What to do next.**', '**Example.**'];
/** Fewer characters than this answer nothing. */
const MIN_PART_CHARS = 20;

function sections(): Map<string, string> {
  const text = readFileSync(join(ROOT, 'docs', 'errors.md'), 'utf8');
  const found = new Map<string, string>();
  for (const part of text.split(/^## /m).slice(1)) {
    const end = part.indexOf('\n');
    const title = part.slice(0, end).trim();
    assert.ok(!found.has(title), `${title} has two sections`);
    found.set(title, part.slice(end));
  }
  return found;
}

test('every error code has exactly one section, in the order of the codes, and no other section is there', () => {
  assert.deepEqual([...sections().keys()], [...STORE_ERROR_CODES]);
});

for (const code of STORE_ERROR_CODES) {
  test(`the section of ${code} says what happened, what is safe and what to do, with an example`, () => {
    const body = sections().get(code) ?? '';
    let from = 0;
    for (const [index, part] of PARTS.entries()) {
      const at = body.indexOf(part, from);
      assert.ok(at >= 0, `${code}: ${part} is missing or out of order`);
      from = at + part.length;
      const next = PARTS[index + 1];
      const end = next === undefined ? body.length : body.indexOf(next, from);
      assert.ok(body.slice(from, end).trim().length >= MIN_PART_CHARS, `${code}: ${part} says nothing`);
    }
    const example = /```\n([\s\S]*?)```/.exec(body.slice(from))?.[1] ?? '';
    assert.ok(example.startsWith(`error ${code}: `), `${code}: the example shows another code`);
  });
}
