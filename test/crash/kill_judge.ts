// What a store must hold after its writer ended at any moment: the expected-state oracle.
//
// It is fed what the writer had said (kill_model.ts) and shown the store that was found. What was acknowledged must be
// there, what was under way whole or not at all, nothing else; every byte is compared and fsck must be clean. What was
// found of the operations under way is expected from then on.

import assert from 'node:assert/strict';
import type { Store } from '../../engine/index.js';
import {
  type Lineage,
  type LogLine,
  type Operation,
  RUN,
  TAG,
  contentOf,
  lineageOf,
  lineageText,
  sameOperation,
} from './kill_model.js';

export interface JudgeReport {
  acknowledged: number;
  refused: number;
  /** Operations under way at the end of a writer, and those of them that were found done. */
  underWay: number;
  foundDone: number;
  versionsCompared: number;
  bytesCompared: number;
  /** Tensors among them that lie in coded chunks. */
  codedTensorsCompared: number;
  /** And those with chunks that are differences to others. */
  deltaTensorsCompared: number;
  /** Copies that a commit cut short had not come to, seen by read-only opens. */
  superblocksCutShort: number;
}

export function newJudgeReport(): JudgeReport {
  return {
    acknowledged: 0,
    refused: 0,
    underWay: 0,
    foundDone: 0,
    versionsCompared: 0,
    bytesCompared: 0,
    codedTensorsCompared: 0,
    deltaTensorsCompared: 0,
    superblocksCutShort: 0,
  };
}

const kinship = (lineage: Lineage, link: Lineage | null): string =>
  link === null ? lineageText(lineage) : `${lineageText(lineage)} links ${lineageText(link)}`;

interface Expected {
  /** By number: lineage, and that of what it links to, as text. */
  readonly versions: Map<number, string>;
  tagged: number | null;
}

export class KillJudge {
  readonly #report: JudgeReport;
  readonly #expected: Expected;

  constructor(report: JudgeReport, expected?: Expected) {
    this.#report = report;
    this.#expected = {
      versions: new Map(expected?.versions ?? []),
      tagged: expected?.tagged ?? null,
    };
  }

  /** Another judge that expects the same: for one of several images of one moment. */
  fork(): KillJudge {
    return new KillJudge(this.#report, this.#expected);
  }

  /** Applies what was acknowledged; returns what was under way. */
  replay(lines: readonly LogLine[]): Operation[] {
    let open: Operation[] = [];
    for (const line of lines) {
      if (line.type === 'intend') {
        assert.deepEqual(open, [], 'one group of operations ends before the next begins');
        open = [...line.operations];
      }
      if (line.type !== 'acknowledged' && line.type !== 'refused') continue;
      open = open.filter((each) => !sameOperation(each, line.operation));
      if (line.type === 'refused') this.#report.refused += 1;
      else {
        this.#apply(line.operation);
        this.#report.acknowledged += 1;
      }
    }
    this.#report.underWay += open.length;
    return open;
  }

  #apply(operation: Operation): void {
    const { versions } = this.#expected;
    if (operation.kind === 'put') versions.set(operation.number, kinship(operation.lineage, operation.link));
    else if (operation.kind === 'tag') this.#expected.tagged = operation.number;
    else {
      versions.delete(operation.number);
      if (this.#expected.tagged === operation.number) this.#expected.tagged = null;
    }
  }

  async judge(store: Store, mode: 'r' | 'rw', underWay: readonly Operation[], where: string): Promise<void> {
    const found = await this.#compareVersions(store, where);
    this.#compareStates(found, underWay, where);
    for await (const event of store.fsck({ data: true })) {
      if (event.type !== 'finding') continue;
      // A commit that was cut short after two of its four superblocks: only a writer's open completes them.
      if (mode === 'r' && event.severity === 'warn' && event.error.where.structure === 'Superblock')
        this.#report.superblocksCutShort += 1;
      else assert.fail(`${where}: fsck: ${event.error.code} ${event.error.message}`);
    }
  }

  /** Every byte that the store holds; returns what it holds by number. */
  async #compareVersions(store: Store, where: string): Promise<Expected> {
    const found: Expected = { versions: new Map(), tagged: null };
    for await (const info of store.list()) {
      assert.equal(info.run, RUN, where);
      const lineage = lineageOf(info.metadata['lineage'] ?? '');
      const number = lineage.at(-1) ?? 0;
      const linkText = info.metadata['link'];
      const link = linkText === undefined ? null : lineageOf(linkText);
      found.versions.set(number, kinship(lineage, link));
      if (info.tags.includes(TAG)) found.tagged = number;
      const version = await store.get(info.id);
      const content = contentOf(lineage, link);
      assert.deepEqual([...version.names].sort(), content.map((each) => each.name).sort(), where);
      for (const { name, bytes } of content) {
        const read = await version.tensor(name).read();
        const places = await version.tensor(name).extents();
        if (places.some(({ coding }) => coding !== null)) this.#report.codedTensorsCompared += 1;
        if (places.some(({ coding }) => coding?.delta === 'XOR')) this.#report.deltaTensorsCompared += 1;
        assert.ok(Buffer.from(read.buffer).equals(bytes), `${where}: ${info.id} ${name} has other bytes`);
        this.#report.bytesCompared += bytes.byteLength;
      }
      this.#report.versionsCompared += 1;
    }
    return found;
  }

  /** Acknowledged, with each operation under way done or not; what was found is expected from now on. */
  #compareStates(found: Expected, underWay: readonly Operation[], where: string): void {
    for (const operation of underWay) {
      const isThere = found.versions.has(operation.number);
      const isDone =
        operation.kind === 'put'
          ? isThere
          : operation.kind === 'remove'
            ? !isThere
            : found.tagged === operation.number;
      if (!isDone) continue;
      this.#apply(operation);
      this.#report.foundDone += 1;
    }
    const sorted = (state: Expected): [number, string][] => [...state.versions].sort((a, b) => a[0] - b[0]);
    assert.deepEqual(sorted(found), sorted(this.#expected), `${where}: versions`);
    assert.equal(found.tagged, this.#expected.tagged, `${where}: tag`);
  }
}
