// One suite for every implementation of the Io port: what the engine relies on, tested by fault.
//
// Call `ioConformance(name, factory)` from a test file. Abilities that an implementation lacks
// (source files, injected faults) are left out of its fixture, and their tests skip visibly.
//
// Invariants
//   1. Tests see nothing but the port and the fixture; no path, file or simulator internals.
//   2. Every test opens its own world and closes it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  GATHER,
  IN_PLACE_LENT,
  IN_PLACE_OWN,
  type Io,
  type IoBuffer,
  type MemberDevice,
} from '../../engine/io/port.js';
import { isStoreError } from '../../format/errors.js';
import { pattern, readBatch, writeBatch } from './batches.js';
import type { Copy, ReadSpec, WriteSpec } from './batches.js';
import { depth, faults } from './io_suite_faults.js';

export const KIB = 1024;
export const MIB = 1024 * KIB;
const MEMBER_BYTES = 64 * MIB;
export const SEGMENT_BYTES = 64 * KIB;

export interface IoFixture {
  readonly io: Io;
  /** A path where no member exists yet. */
  newPath(): string;
  /** Changes bytes of a member behind the implementation's back. */
  corrupt(path: string, offsetBytes: number, bytes: Uint8Array): Promise<void>;
  /** Another Io over the same world (as another process would be), for locks. Closed by the test. */
  another(): Promise<Io>;
  /** Writes a source file and returns its path. */
  readonly makeSource?: (bytes: Uint8Array) => Promise<string>;
  /** Fault rules in the language of ingot_fault_configure. */
  readonly setFaults?: (rules: string) => void;
  /** Ends the world; the Io is closed already. */
  dispose(): Promise<void>;
}

export type IoFixtureFactory = () => Promise<IoFixture>;

export interface World extends IoFixture {
  /** Marks the running test as skipped. */
  skip(reason: string): void;
  member(index: number): MemberDevice;
  write(
    spec: Omit<WriteSpec, 'storedBytes' | 'segmentBytes' | 'rawBytes'> & Partial<WriteSpec>,
  ): Promise<Written>;
}

export interface Written {
  readonly copies: readonly Copy[];
  readonly storedBytes: number;
  readonly segmentBytes: number;
  readonly sums: bigint[];
}

const padded = (bytes: number) => Math.max(4096, Math.ceil(bytes / 4096) * 4096);
export const same = (left: Uint8Array, right: Uint8Array) => Buffer.compare(left, right) === 0;
export const reading = (
  written: Written,
  destination: IoBuffer | null,
  more: Partial<ReadSpec> = {},
): ReadSpec => ({
  ...written,
  destination,
  ...more,
});

async function withWorld(
  factory: IoFixtureFactory,
  members: number,
  body: (world: World) => Promise<void>,
  skip: (reason: string) => void,
): Promise<void> {
  const fixture = await factory();
  try {
    const devices: MemberDevice[] = [];
    for (let index = 0; index < members; index++) {
      devices.push(await fixture.io.createMember(fixture.newPath(), { sizeBytes: MEMBER_BYTES }));
    }
    const member = (index: number): MemberDevice => {
      const device = devices[index];
      assert.ok(device);
      return device;
    };
    const write: World['write'] = async (spec) => {
      const end = spec.pieces.reduce(
        (most, piece) => Math.max(most, piece.offsetBytes + (piece.bytes ?? piece.source.byteLength)),
        0,
      );
      const full = { rawBytes: end, storedBytes: padded(end), segmentBytes: SEGMENT_BYTES, ...spec };
      const batch = writeBatch([full]);
      const result = await fixture.io.write(batch);
      assert.deepEqual([...result.status], [0], JSON.stringify(result.faults));
      return {
        copies: full.copies,
        storedBytes: full.storedBytes,
        segmentBytes: full.segmentBytes,
        sums: [...batch.segmentSums],
      };
    };
    await body({ ...fixture, member, write, skip });
  } finally {
    await fixture.io.close();
    await fixture.dispose();
  }
}

export function ioConformance(name: string, factory: IoFixtureFactory): void {
  const it = (title: string, members: number, body: (world: World) => Promise<void>) =>
    test(`${name}: ${title}`, (context) =>
      withWorld(factory, members, body, (reason) => context.skip(reason)));
  opening(it);
  sumsAndPieces(it);
  partialReads(it);
  copies(it);
  cancellation(it);
  locks(it);
  rawAndFlush(it);
  sources(it);
  faults(it);
  depth(it);
}

export type It = (title: string, members: number, body: (world: World) => Promise<void>) => void;

function opening(it: It): void {
  it('a new member has its size, and is not made twice', 1, async ({ io, member }) => {
    const device = member(0);
    assert.equal(device.sizeBytes, MEMBER_BYTES);
    assert.ok(4096 % device.offsetAlignmentBytes === 0);
    await assert.rejects(io.createMember(device.path, { sizeBytes: MEMBER_BYTES }), (error) =>
      isStoreError(error, 'E_EXISTS'),
    );
  });

  it('a missing member is E_NOT_FOUND', 0, async ({ io, newPath }) => {
    await assert.rejects(io.openMember(newPath(), { mode: 'rw', direct: 'prefer' }), (error) =>
      isStoreError(error, 'E_NOT_FOUND'),
    );
  });

  it('bytes survive close and reopen, read-only opens refuse writes', 1, async ({ io, member, write }) => {
    const bytes = pattern(100_000, 1);
    const { path, slot } = member(0);
    const written = await write({
      copies: [{ slot, offsetBytes: 8192 }],
      pieces: [{ offsetBytes: 0, source: bytes }],
    });
    await io.flush([slot]);
    await io.closeMember(slot);
    const again = await io.openMember(path, { mode: 'r', direct: 'prefer' });
    assert.equal(again.sizeBytes, MEMBER_BYTES);
    const copy = [{ slot: again.slot, offsetBytes: 8192 }];
    const destination = io.allocate(written.storedBytes);
    const result = await io.read(readBatch([reading({ ...written, copies: copy }, destination)]));
    assert.deepEqual([...result.status], [0]);
    assert.ok(same(destination.subarray(0, bytes.length), bytes));
    const refused = await io.write(writeBatch([{ ...written, rawBytes: 4096, copies: copy, pieces: [] }]));
    assert.deepEqual([...refused.status], [1]);
  });
}

function sumsAndPieces(it: It): void {
  it('segment, raw and piece sums are those of the bytes, padding included', 2, async ({ io, member }) => {
    const first = pattern(70_001, 2);
    const second = pattern(200_003, 3);
    const expected = new Uint8Array(64 * KIB * 5);
    expected.set(first, 5);
    expected.set(second, 81_920);
    const rawBytes = 81_920 + second.length + 100;
    const spec = {
      copies: [
        { slot: member(0).slot, offsetBytes: MIB },
        { slot: member(1).slot, offsetBytes: 2 * MIB },
      ],
      rawBytes,
      storedBytes: expected.length,
      segmentBytes: SEGMENT_BYTES,
      pieces: [
        { offsetBytes: 5, source: first },
        { offsetBytes: 81_920, source: second },
      ],
    };
    const batch = writeBatch([spec]);
    const result = await io.write(batch);
    assert.deepEqual([...result.status], [0]);
    for (let segment = 0; segment < 5; segment++) {
      const bytes = expected.subarray(segment * SEGMENT_BYTES, (segment + 1) * SEGMENT_BYTES);
      assert.equal(batch.segmentSums[segment], io.checksum.crc64(bytes), `segment ${segment}`);
    }
    assert.equal(batch.rawSums[0], io.checksum.crc64(expected.subarray(0, rawBytes)));
    assert.deepEqual([...batch.pieceSums], [io.checksum.crc64(first), io.checksum.crc64(second)]);
    for (const copy of spec.copies) {
      assert.ok(
        same(await io.readRaw(copy.slot, copy.offsetBytes, expected.length), expected),
        'each copy holds the same bytes',
      );
    }
  });

  it('a large extent of odd pieces and gaps is whole on every copy', 2, async ({ io, member }) => {
    const storedBytes = 7 * MIB;
    const expected = new Uint8Array(storedBytes);
    const pieces = [
      { offsetBytes: 0, source: pattern(2 * MIB + 1, 21) },
      { offsetBytes: 3 * MIB - 7, source: pattern(2 * MIB - 1, 22) },
      { offsetBytes: 5 * MIB - 8, source: pattern(MIB + 11, 23) },
    ];
    for (const piece of pieces) expected.set(piece.source, piece.offsetBytes);
    const copies = [
      { slot: member(0).slot, offsetBytes: 4096 },
      { slot: member(1).slot, offsetBytes: 8192 },
    ];
    const rawBytes = 6 * MIB + 3;
    const batch = writeBatch([{ copies, rawBytes, storedBytes, segmentBytes: SEGMENT_BYTES, pieces }]);
    assert.deepEqual([...(await io.write(batch)).status], [0]);
    assert.equal(batch.rawSums[0], io.checksum.crc64(expected.subarray(0, rawBytes)));
    assert.deepEqual(
      [...batch.pieceSums],
      pieces.map(({ source }) => io.checksum.crc64(source)),
    );
    const sums = Array.from({ length: storedBytes / SEGMENT_BYTES }, (_, segment) =>
      io.checksum.crc64(expected.subarray(segment * SEGMENT_BYTES, (segment + 1) * SEGMENT_BYTES)),
    );
    assert.deepEqual([...batch.segmentSums], sums);
    for (const { slot, offsetBytes } of copies) {
      assert.ok(
        same(await io.readRaw(slot, offsetBytes, storedBytes), expected),
        'each copy holds the same bytes',
      );
    }
  });

  it(
    'bytes written from where they lie are those of the sums, whatever their length and address',
    2,
    async ({ io, member }) => {
      const memory = io.allocate(MIB + 8192);
      memory.set(pattern(memory.byteLength, 24));
      const before = memory.slice();
      // Aligned and whole, aligned with an odd end, at an odd address, and too short to be worth it.
      for (const [start, length] of [
        [0, MIB],
        [4096, MIB + 5],
        [3, MIB],
        [4096, 300],
      ] as const) {
        const source = memory.subarray(start, start + length);
        const copies = [
          { slot: member(0).slot, offsetBytes: 4096 },
          { slot: member(1).slot, offsetBytes: 8192 },
        ];
        const storedBytes = padded(length) + 4096;
        const spec = {
          copies,
          rawBytes: length,
          storedBytes,
          segmentBytes: SEGMENT_BYTES,
          pieces: [{ offsetBytes: 0, source }],
        };
        const expected = new Uint8Array(storedBytes);
        expected.set(source);
        for (const how of [GATHER, IN_PLACE_LENT, IN_PLACE_OWN]) {
          for (const { slot, offsetBytes } of copies)
            await io.writeRaw(slot, offsetBytes, new Uint8Array(storedBytes).fill(9));
          const batch = { ...writeBatch([spec]), inPlace: Uint8Array.of(how) };
          assert.deepEqual([...(await io.write(batch)).status], [0]);
          assert.equal(batch.rawSums[0], io.checksum.crc64(source));
          assert.equal(batch.pieceSums[0], batch.rawSums[0]);
          const sums = Array.from({ length: Math.ceil(storedBytes / SEGMENT_BYTES) }, (_, segment) =>
            io.checksum.crc64(expected.subarray(segment * SEGMENT_BYTES, (segment + 1) * SEGMENT_BYTES)),
          );
          assert.deepEqual([...batch.segmentSums], sums, `${start} ${length} ${how}`);
          for (const { slot, offsetBytes } of copies)
            assert.ok(
              same(await io.readRaw(slot, offsetBytes, storedBytes), expected),
              `${start} ${length} ${how}`,
            );
        }
      }
      assert.ok(same(memory, before), 'the memory was only read');
      io.release(memory);
    },
  );

  it('the checksum is CRC-64/NVME and continues from a seed', 0, async ({ io }) => {
    const text = new TextEncoder().encode('123456789');
    assert.equal(io.checksum.crc64(text), 0xae8b14860a799888n);
    assert.equal(
      io.checksum.crc64(text.subarray(4), io.checksum.crc64(text.subarray(0, 4))),
      0xae8b14860a799888n,
    );
    assert.equal(io.checksum.crc64(new Uint8Array(0)), 0n);
  });

  it(
    'one source buffer may serve many ops and pieces, and empty pieces sum to zero',
    1,
    async ({ io, member }) => {
      const shared = pattern(10_000, 4);
      const { slot } = member(0);
      const specs = Array.from({ length: 20 }, (_, index) => ({
        copies: [{ slot, offsetBytes: index * 65_536 }],
        rawBytes: 30_000,
        storedBytes: 32_768,
        segmentBytes: 4096,
        pieces: [
          { offsetBytes: 0, bytes: 5000, source: shared, sourceOffsetBytes: index },
          { offsetBytes: 5000, bytes: 0, source: shared },
          { offsetBytes: 8192, bytes: 9000, source: shared, sourceOffsetBytes: 1000 },
        ],
      }));
      const batch = writeBatch(specs);
      const result = await io.write(batch);
      assert.ok(result.status.every((status) => status === 0));
      specs.forEach((_, index) => {
        assert.equal(batch.pieceSums[index * 3], io.checksum.crc64(shared.subarray(index, index + 5000)));
        assert.equal(batch.pieceSums[index * 3 + 1], 0n);
      });
    },
  );

  it('a write beyond the end of the member fails and grows nothing', 1, async ({ io, member }) => {
    const source = pattern(8192, 5);
    const copies = [{ slot: member(0).slot, offsetBytes: MEMBER_BYTES - 4096 }];
    const spec = {
      copies,
      rawBytes: 8192,
      storedBytes: 8192,
      segmentBytes: 4096,
      pieces: [{ offsetBytes: 0, source }],
    };
    const result = await io.write(writeBatch([spec]));
    assert.deepEqual([...result.status], [1]);
    assert.equal(result.faults[0]?.kind, 'io');
    assert.ok((await io.readRaw(member(0).slot, MEMBER_BYTES - 4096, 4096)).every((byte) => byte === 0));
  });
}

function partialReads(it: It): void {
  it(
    'any wanted range arrives exactly, at any alignment, and nothing around it changes',
    1,
    async ({ io, member, write }) => {
      const bytes = pattern(5 * SEGMENT_BYTES, 6);
      const copies = [{ slot: member(0).slot, offsetBytes: 4096 }];
      const written = await write({ copies, pieces: [{ offsetBytes: 0, source: bytes }] });
      const ranges = [
        [0, bytes.length],
        [0, 1],
        [1, 1],
        [bytes.length - 1, 1],
        [65_535, 2],
        [65_536, 65_536],
        [100, 200_000],
        [65_536, 262_144],
        [4096, 8192],
        [131_072, 0],
        [3, 327_677],
      ];
      const guard = 64;
      for (const [offset = 0, length = 0] of ranges) {
        for (const shift of [0, 1, 512, 4096]) {
          const destination = io.allocate(length + shift + 2 * guard).fill(0xa5);
          const at = shift + guard;
          const spec = reading(written, destination, {
            wantedOffsetBytes: offset,
            wantedBytes: length,
            destinationOffsetBytes: at,
          });
          const result = await io.read(readBatch([spec]));
          assert.deepEqual([...result.status], [0]);
          assert.ok(
            same(destination.subarray(at, at + length), bytes.subarray(offset, offset + length)),
            `${offset}+${length}@${shift}`,
          );
          const around = [...destination.subarray(0, at), ...destination.subarray(at + length)];
          assert.ok(
            around.every((byte) => byte === 0xa5),
            'bytes around the wanted range are untouched',
          );
        }
      }
    },
  );

  it('a page with one sum is read as one segment', 1, async ({ io, member, write }) => {
    const bytes = pattern(3 * MIB + 4096, 7);
    const copies = [{ slot: member(0).slot, offsetBytes: 0 }];
    const written = await write({
      copies,
      segmentBytes: 64 * MIB,
      pieces: [{ offsetBytes: 0, source: bytes }],
    });
    assert.equal(written.sums.length, 1);
    const destination = io.allocate(bytes.length);
    const result = await io.read(readBatch([reading(written, destination)]));
    assert.deepEqual([...result.status], [0]);
    assert.ok(same(destination, bytes));
  });

  it('ordinary views and shared memory are destinations too', 1, async ({ io, member, write }) => {
    const bytes = pattern(200_000, 8);
    const written = await write({
      copies: [{ slot: member(0).slot, offsetBytes: 0 }],
      pieces: [{ offsetBytes: 0, source: bytes }],
    });
    const plain = new Uint8Array(200_001).subarray(1);
    const shared = new Uint8Array(new SharedArrayBuffer(200_000));
    const wanted = { wantedBytes: 200_000 };
    const result = await io.read(
      readBatch([reading(written, plain, wanted), reading(written, shared, wanted)]),
    );
    assert.deepEqual([...result.status], [0, 0]);
    assert.ok(same(plain, bytes) && same(shared, bytes));
  });
}

function copies(it: It): void {
  it('a rotten segment is taken from the next copy and named', 2, async ({ io, member, write, corrupt }) => {
    const bytes = pattern(8 * SEGMENT_BYTES, 9);
    const both = [
      { slot: member(0).slot, offsetBytes: MIB },
      { slot: member(1).slot, offsetBytes: 3 * MIB },
    ];
    const written = await write({ copies: both, pieces: [{ offsetBytes: 0, source: bytes }] });
    await io.flush([member(0).slot, member(1).slot]);
    await corrupt(member(0).path, MIB + 2 * SEGMENT_BYTES + 77, Uint8Array.of(1, 2, 3));
    await corrupt(member(1).path, 3 * MIB + 5 * SEGMENT_BYTES, Uint8Array.of(9, 9, 9));
    const destination = io.allocate(bytes.length);
    const result = await io.read(readBatch([reading(written, destination)]));
    assert.deepEqual([...result.status], [0]);
    assert.ok(same(destination, bytes));
    assert.deepEqual(
      result.faults.map(({ copy, slot, offsetBytes, kind }) => ({ copy, slot, offsetBytes, kind })),
      [{ copy: 0, slot: member(0).slot, offsetBytes: MIB + 2 * SEGMENT_BYTES, kind: 'checksum' }],
    );
    assert.equal(io.stats().perSlot.find(({ slot }) => slot === member(0).slot)?.checksumErrors, 1);
  });

  it('what has no destination is checked, part by part, and named where it is bad', 2, async (world) => {
    const { io, member, write, corrupt } = world;
    const bytes = pattern(40 * SEGMENT_BYTES, 21);
    const both = [0, 1].map((index) => ({ slot: member(index).slot, offsetBytes: (1 + index) * MIB }));
    const written = await write({ copies: both, pieces: [{ offsetBytes: 0, source: bytes }] });
    await io.flush(both.map(({ slot }) => slot));
    await corrupt(member(1).path, 2 * MIB + 17 * SEGMENT_BYTES + 5, Uint8Array.of(1, 2, 3));
    const alone = both.flatMap((copy) =>
      Array.from({ length: 10 }, (_, part) => {
        const range = { wantedOffsetBytes: part * 4 * SEGMENT_BYTES, wantedBytes: 4 * SEGMENT_BYTES };
        return reading({ ...written, copies: [copy] }, null, range);
      }),
    );
    const result = await io.read(readBatch([...alone, reading(written, null)]));
    assert.deepEqual([...result.status], [...Array.from({ length: 20 }, (_, op) => (op === 14 ? 1 : 0)), 0]);
    assert.deepEqual(
      result.faults.map(({ op, slot, offsetBytes, kind }) => ({ op, slot, offsetBytes, kind })),
      [{ op: 14, slot: both[1]?.slot, offsetBytes: 2 * MIB + 17 * SEGMENT_BYTES, kind: 'checksum' }],
    );
  });

  it(
    'when every copy of a segment is bad the op fails, and no bad byte is handed out',
    2,
    async ({ io, member, write, corrupt }) => {
      const bytes = pattern(3 * SEGMENT_BYTES, 10).fill(0x5a, 0, 10);
      const both = [
        { slot: member(0).slot, offsetBytes: 0 },
        { slot: member(1).slot, offsetBytes: 0 },
      ];
      const written = await write({ copies: both, pieces: [{ offsetBytes: 0, source: bytes }] });
      for (const index of [0, 1])
        await corrupt(member(index).path, SEGMENT_BYTES + 5, Uint8Array.of(index, 1));
      const destination = io.allocate(bytes.length).fill(0xee);
      const good = io.allocate(SEGMENT_BYTES);
      const result = await io.read(
        readBatch([reading(written, destination), reading(written, good, { wantedBytes: SEGMENT_BYTES })]),
      );
      assert.deepEqual([...result.status], [1, 0]);
      assert.deepEqual(
        result.faults.map(({ op, copy, kind }) => [op, copy, kind]),
        [
          [0, 0, 'checksum'],
          [0, 1, 'checksum'],
        ],
      );
      assert.ok(destination.subarray(SEGMENT_BYTES, 2 * SEGMENT_BYTES).every((byte) => byte === 0));
      assert.ok(same(good, bytes.subarray(0, SEGMENT_BYTES)));
    },
  );

  it('a copy on a member that is not open is passed over as missing', 2, async ({ io, member, write }) => {
    const bytes = pattern(10_000, 11);
    const both = [
      { slot: member(0).slot, offsetBytes: 0 },
      { slot: member(1).slot, offsetBytes: 0 },
    ];
    const written = await write({ copies: both, pieces: [{ offsetBytes: 0, source: bytes }] });
    await io.closeMember(member(0).slot);
    const destination = io.allocate(written.storedBytes);
    const result = await io.read(readBatch([reading(written, destination)]));
    assert.deepEqual([...result.status], [0]);
    assert.deepEqual(
      result.faults.map(({ copy, kind }) => [copy, kind]),
      [[0, 'missing']],
    );
    const spec = { ...written, rawBytes: 10_000, pieces: [{ offsetBytes: 0, source: bytes }] };
    const lost = await io.write(writeBatch([spec]));
    assert.deepEqual([...lost.status], [1]);
    assert.deepEqual(
      lost.faults.map(({ copy, kind }) => [copy, kind]),
      [[0, 'missing']],
    );
  });
}

function cancellation(it: It): void {
  it('an aborted signal rejects with its own reason, before and during', 1, async ({ io, member, write }) => {
    const bytes = pattern(MIB, 12);
    const written = await write({
      copies: [{ slot: member(0).slot, offsetBytes: 0 }],
      pieces: [{ offsetBytes: 0, source: bytes }],
    });
    const reason = new Error('enough');
    const early = AbortSignal.abort(reason);
    const destination = io.allocate(MIB);
    await assert.rejects(io.read(readBatch([reading(written, destination)], { signal: early })), reason);
    const controller = new AbortController();
    const many = Array.from({ length: 500 }, () => reading(written, destination));
    const running = io.read(readBatch(many, { signal: controller.signal }));
    controller.abort(reason);
    await assert.rejects(running, reason);
    const after = await io.read(readBatch([reading(written, destination)]));
    assert.deepEqual([...after.status], [0]);
    assert.ok(same(destination, bytes), 'the world works on after an abort');
  });

  it('a spent deadline fails with ETIMEDOUT and starts nothing', 1, async ({ io, member, write }) => {
    const bytes = pattern(4096, 13);
    const written = await write({
      copies: [{ slot: member(0).slot, offsetBytes: 0 }],
      pieces: [{ offsetBytes: 0, source: bytes }],
    });
    const destination = io.allocate(4096);
    const result = await io.read(readBatch([reading(written, destination)], { deadlineMs: 0 }));
    assert.deepEqual([...result.status], [1]);
    assert.deepEqual(
      result.faults.map(({ kind, errno }) => [kind, errno]),
      [['deadline', 110]],
    );
    const plenty = await io.read(readBatch([reading(written, destination)], { deadlineMs: 60_000 }));
    assert.deepEqual([...plenty.status], [0]);
  });

  it('an empty batch settles', 0, async ({ io }) => {
    assert.equal((await io.read(readBatch([]))).status.length, 0);
    assert.equal((await io.write(writeBatch([]))).status.length, 0);
    assert.deepEqual(await io.flush([]), []);
  });
}

function locks(it: It): void {
  it(
    'the writer lock excludes other opens and is free again after unlock and close',
    1,
    async ({ io, member, another }) => {
      const other = await another();
      try {
        const theirs = await other.openMember(member(0).path, { mode: 'rw', direct: 'prefer' });
        assert.equal(io.tryLockWriter(member(0).slot), true);
        assert.equal(io.tryLockWriter(member(0).slot), true, 'taking it again is no conflict');
        assert.equal(other.tryLockWriter(theirs.slot), false);
        io.unlockWriter(member(0).slot);
        assert.equal(other.tryLockWriter(theirs.slot), true);
        assert.equal(io.tryLockWriter(member(0).slot), false);
        await other.closeMember(theirs.slot);
        assert.equal(io.tryLockWriter(member(0).slot), true);
      } finally {
        await other.close();
      }
    },
  );

  it(
    'pins of other opens are seen below their sequence, counted, and dropped',
    1,
    async ({ io, member, another }) => {
      const other = await another();
      try {
        const { slot } = member(0);
        const theirs = await other.openMember(member(0).path, { mode: 'r', direct: 'prefer' });
        assert.equal(io.pinnedBelow(slot, 1_000_000), false);
        other.pin(theirs.slot, 7);
        other.pin(theirs.slot, 7);
        assert.deepEqual(
          [0, 7, 8, 2 ** 40].map((sequence) => io.pinnedBelow(slot, sequence)),
          [false, false, true, true],
        );
        io.pin(slot, 3);
        assert.equal(io.pinnedBelow(slot, 5), false, 'own pins do not count');
        assert.equal(other.pinnedBelow(theirs.slot, 5), true);
        other.unpin(theirs.slot, 7);
        assert.equal(io.pinnedBelow(slot, 8), true, 'pins are counted');
        other.unpin(theirs.slot, 7);
        assert.equal(io.pinnedBelow(slot, 8), false);
        other.pin(theirs.slot, 4);
        await other.closeMember(theirs.slot);
        assert.equal(io.pinnedBelow(slot, 8), false, 'a close drops its pins');
      } finally {
        await other.close();
      }
    },
  );

  it('this process is alive under its own identity only', 0, async ({ io }) => {
    const { processId, processStart, bootId } = io.identity();
    assert.ok(bootId.length > 0 && processStart.length > 0);
    assert.equal(io.processAlive(processId, processStart), true);
    assert.equal(io.processAlive(processId, `${processStart}1`), false);
  });
}

function rawAndFlush(it: It): void {
  it('raw bytes go in place and come back, at odd offsets too', 1, async ({ io, member }) => {
    const bytes = pattern(3 * 4096, 14);
    const { slot } = member(0);
    await io.writeRaw(slot, 40_960, bytes, { priority: 0 });
    assert.ok(same(await io.readRaw(slot, 40_960, bytes.length), bytes));
    assert.ok(same(await io.readRaw(slot, 40_960 + 100, 5000), bytes.subarray(100, 5100)));
    assert.ok(same(await io.readRaw(slot, MEMBER_BYTES - 10, 10), new Uint8Array(10)));
    assert.equal((await io.readRaw(slot, 0, 0)).length, 0);
  });

  it('a raw read beyond the end is E_IO', 1, async ({ io, member }) => {
    await assert.rejects(io.readRaw(member(0).slot, MEMBER_BYTES - 4096, 8192), (error) =>
      isStoreError(error, 'E_IO'),
    );
  });

  it('flush answers once per slot', 2, async ({ io, member }) => {
    const slots = [member(1).slot, member(0).slot];
    assert.deepEqual(
      await io.flush(slots),
      slots.map((slot) => ({ slot, errno: 0 })),
    );
  });
}

function sources(it: It): void {
  it('pieces come from source files at any offset, in order and mixed with memory', 1, async (world) => {
    const { io, member, makeSource, skip } = world;
    if (makeSource === undefined) return skip('no source files here');
    const bytes = pattern(3 * MIB + 1234, 15);
    const memory = pattern(1000, 16);
    const file = await io.openSource(await makeSource(bytes));
    assert.equal(file.byteLength, bytes.length);
    const before = await file.identity();
    for (const [shift, length] of [
      [0, 4096],
      [0, MIB],
      [8, MIB],
      [13, 2 * MIB + 7],
      [4096, 65_536],
      [MIB + 3, 2 * MIB + 1231],
    ] as const) {
      const tail = Math.ceil(length / 4096) * 4096;
      const spec = {
        copies: [{ slot: member(0).slot, offsetBytes: 0 }],
        rawBytes: tail + 4096 + 500,
        storedBytes: tail + 8192,
        segmentBytes: SEGMENT_BYTES,
        pieces: [
          { offsetBytes: 0, bytes: length, source: file, sourceOffsetBytes: shift },
          { offsetBytes: tail, source: memory },
          { offsetBytes: tail + 4096, bytes: 500, source: file, sourceOffsetBytes: 99 },
        ],
      };
      const batch = writeBatch([spec]);
      const result = await io.write(batch);
      assert.deepEqual([...result.status], [0]);
      const expected = new Uint8Array(spec.storedBytes);
      expected.set(bytes.subarray(shift, shift + length));
      expected.set(memory, tail);
      expected.set(bytes.subarray(99, 599), tail + 4096);
      assert.ok(same(await io.readRaw(member(0).slot, 0, spec.storedBytes), expected), `${shift}+${length}`);
      assert.equal(batch.pieceSums[0], io.checksum.crc64(bytes.subarray(shift, shift + length)));
      assert.equal(batch.rawSums[0], io.checksum.crc64(expected.subarray(0, spec.rawBytes)));
    }
    assert.equal(await file.identity(), before);
    await file.close();
  });

  it(
    'one piece of a source file is whole wherever it begins there: it is read above its place',
    1,
    async (world) => {
      const { io, member, makeSource, skip } = world;
      if (makeSource === undefined) return skip('no source files here');
      const bytes = pattern(6 * MIB + 1234, 18);
      const file = await io.openSource(await makeSource(bytes));
      for (const shift of [1, 63, 511, 513, 4095, 4097, 70_001])
        for (const length of [1, 4096, 65_537, 5 * MIB, bytes.length - shift]) {
          const storedBytes = Math.ceil(length / 4096) * 4096;
          const copies = [{ slot: member(0).slot, offsetBytes: 0 }];
          const pieces = [{ offsetBytes: 0, bytes: length, source: file, sourceOffsetBytes: shift }];
          const spec = { copies, rawBytes: length, storedBytes, segmentBytes: SEGMENT_BYTES, pieces };
          const batch = writeBatch([spec]);
          assert.deepEqual([...(await io.write(batch)).status], [0]);
          const expected = new Uint8Array(storedBytes);
          expected.set(bytes.subarray(shift, shift + length));
          const name = `${shift}+${length}`;
          assert.ok(same(await io.readRaw(member(0).slot, 0, storedBytes), expected), name);
          assert.equal(batch.pieceSums[0], io.checksum.crc64(bytes.subarray(shift, shift + length)), name);
          for (let segment = 0; segment * SEGMENT_BYTES < storedBytes; segment++) {
            const end = Math.min((segment + 1) * SEGMENT_BYTES, storedBytes);
            const sum = io.checksum.crc64(expected.subarray(segment * SEGMENT_BYTES, end));
            assert.equal(batch.segmentSums[segment], sum, `${name}, segment ${segment}`);
          }
        }
      await file.close();
    },
  );

  it(
    'a source that ends early fails its op, is named, and writes nothing',
    1,
    async ({ io, member, makeSource, skip }) => {
      if (makeSource === undefined) return skip('no source files here');
      const file = await io.openSource(await makeSource(pattern(10_000, 17)));
      const pieces = [{ offsetBytes: 0, bytes: 8192, source: file, sourceOffsetBytes: 5000 }];
      const copies = [{ slot: member(0).slot, offsetBytes: 0 }];
      const result = await io.write(
        writeBatch([{ copies, rawBytes: 8192, storedBytes: 8192, segmentBytes: 4096, pieces }]),
      );
      assert.deepEqual([...result.status], [1]);
      assert.equal(result.sourceFaults[0]?.file, file.path);
      assert.ok((await io.readRaw(member(0).slot, 0, 8192)).every((byte) => byte === 0));
      await file.close();
    },
  );
}
