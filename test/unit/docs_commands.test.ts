// The documents against the program: every `ingot` line in them is a command that exists, with options
// that it knows, and every link to a file of this checkout leads to one.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

// dist/test/unit/docs_commands.test.js: the checkout is three directories up.
const ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const INGOT = join(ROOT, 'dist', 'tools', 'ingot.js');
const DOCUMENTS = ['README.md', 'SAFETY.md', 'CONTRIBUTING.md', 'docs/encryption.md', 'docs/errors.md'];

/** Commands that have commands of their own. */
const NESTED: ReadonlySet<string> = new Set(['key']);

interface Mention {
  readonly place: string;
  readonly command: string;
  readonly options: readonly string[];
}

/** Lines of code blocks that begin with `ingot`, what follows `next`, and `ingot ...` in backquotes. */
function mentions(document: string): Mention[] {
  const found: Mention[] = [];
  const text = readFileSync(join(ROOT, document), 'utf8');
  text.split('\n').forEach((line, index) => {
    const inline = [...line.matchAll(/`ingot ([^`]+)`/g)].map((match) => match[1] ?? '');
    const block = /^(?: {2}next {4})?ingot (.+)$/.exec(line)?.[1];
    for (const words of block === undefined ? inline : [...inline, block]) {
      const [first = '', ...rest] = words
        .replace(/\s#.*$/, '')
        .trim()
        .split(/\s+/);
      const nested = NESTED.has(first) ? /^[a-z]+/.exec(rest[0] ?? '')?.[0] : undefined;
      const command = nested === undefined ? first : `${first} ${nested}`;
      // Words in capitals stand for something; the first word must be the command itself.
      if (!/^[a-z ]+$/.test(command)) continue;
      const options = rest
        .filter((word) => /^-{1,2}[a-z]/.test(word))
        .map((word) => word.split('=')[0] ?? '');
      found.push({ place: `${document}:${index + 1}`, command, options });
    }
  });
  return found;
}

test('every ingot command and option that the documents name exists', () => {
  const all = DOCUMENTS.flatMap(mentions);
  assert.ok(all.length > 30, `${all.length} mentions were found`);
  const help = new Map<string, string>();
  for (const command of new Set(all.map((mention) => mention.command))) {
    const args = command === 'bench' ? ['--help'] : [...command.split(' '), '--help'];
    const result = spawnSync(process.execPath, [INGOT, ...args], { encoding: 'utf8' });
    const usage = command === 'bench' || result.stdout.startsWith(`Usage: ingot ${command}`);
    help.set(command, result.status === 0 && usage ? result.stdout : '');
  }
  for (const { place, command, options } of all) {
    const text = help.get(command) ?? '';
    assert.ok(text !== '', `${place}: there is no command ${command}`);
    for (const option of options) {
      const known = new RegExp(`(?:^|[\\s,])${option}(?=[\\s,]|$)`, 'm').test(text);
      assert.ok(known, `${place}: ingot ${command} has no ${option}`);
    }
  }
});

test('every link in the documents to a file of this checkout leads to one', () => {
  for (const document of DOCUMENTS) {
    const text = readFileSync(join(ROOT, document), 'utf8');
    for (const match of text.matchAll(/\]\((?!https?:)([^)#\s]+)/g)) {
      const target = match[1] ?? '';
      assert.ok(
        existsSync(join(ROOT, dirname(document), target)),
        `${document} links to ${target}, which is not there`,
      );
    }
  }
});
