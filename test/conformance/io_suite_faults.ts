// The part of the Io conformance suite about injected device faults and deep queues.
//
// Invariants
//   1. As io_suite.ts: nothing is seen but the port and the fixture.
//   2. Faults are set through the fixture; an implementation without them skips those tests.

import assert from 'node:assert/strict';
import { pattern, readBatch, writeBatch } from './batches.js';
import { MIB, SEGMENT_BYTES, same, reading } from './io_suite.js';
import type { It } from './io_suite.js';
import { IN_PLACE_LENT } from '../../engine/io/port.js';

export function faults(it: It): void {
  it(
    'EIO, short and zero-byte reads take the next copy',
    2,
    async ({ io, member, write, setFaults, skip }) => {
      if (setFaults === undefined) return skip('no injected faults here');
      const bytes = pattern(MIB, 18);
      const both = [
        { slot: member(0).slot, offsetBytes: 0 },
        { slot: member(1).slot, offsetBytes: 0 },
      ];
      const written = await write({ copies: both, pieces: [{ offsetBytes: 0, source: bytes }] });
      for (const effect of ['EIO', 'zero', 'short', 'EAGAIN', 'EINTR']) {
        for (const times of ['once', 'sticky']) {
          setFaults(`read@${member(0).slot}:1:${effect}:${times}`);
          const destination = io.allocate(MIB);
          const result = await io.read(readBatch([reading(written, destination)]));
          assert.deepEqual([...result.status], [0], `${effect} ${times}`);
          assert.ok(same(destination, bytes), `${effect} ${times}`);
          const harmless = times === 'once' && effect !== 'EIO' && effect !== 'zero';
          assert.equal(
            result.faults.length === 0,
            harmless,
            `${effect} ${times} is ${harmless ? 'absorbed' : 'reported'}`,
          );
        }
      }
      setFaults('');
    },
  );

  it(
    'a failed write of one copy fails the op and names the copy',
    2,
    async ({ io, member, setFaults, skip }) => {
      if (setFaults === undefined) return skip('no injected faults here');
      const source = pattern(MIB, 19);
      const copies = [
        { slot: member(0).slot, offsetBytes: 0 },
        { slot: member(1).slot, offsetBytes: 0 },
      ];
      const spec = {
        copies,
        rawBytes: MIB,
        storedBytes: MIB,
        segmentBytes: SEGMENT_BYTES,
        pieces: [{ offsetBytes: 0, source }],
      };
      for (const [effect, errno] of [
        ['EIO', 5],
        ['ENOSPC', 28],
        ['zero', 0],
      ] as const) {
        setFaults(`write@${member(1).slot}:1:${effect}:once`);
        const result = await io.write(writeBatch([spec]));
        assert.deepEqual([...result.status], [1]);
        assert.deepEqual(
          result.faults.map((fault) => [fault.copy, fault.errno]),
          [[1, errno]],
        );
      }
      for (const effect of ['short', 'EAGAIN', 'EINTR']) {
        setFaults(`write:1:${effect}:once`);
        assert.deepEqual([...(await io.write(writeBatch([spec]))).status], [0], effect);
      }
      setFaults('');
      assert.ok(same(await io.readRaw(member(0).slot, 0, MIB), source));
    },
  );

  it(
    'lent memory that changes while it is written fails the op, on one copy and on two',
    2,
    async ({ io, member, setFaults, skip }) => {
      if (setFaults === undefined) return skip('no injected faults here');
      const source = io.allocate(2 * MIB);
      const both = [
        { slot: member(0).slot, offsetBytes: 0 },
        { slot: member(1).slot, offsetBytes: 0 },
      ];
      for (const copies of [both.slice(1), both]) {
        source.set(pattern(2 * MIB, 22));
        const pieces = [{ offsetBytes: 0, source }];
        const spec = { copies, rawBytes: 2 * MIB, storedBytes: 2 * MIB, segmentBytes: SEGMENT_BYTES, pieces };
        // The device answers late: the memory changes after it was summed and before the last write has ended.
        setFaults(`write@${member(1).slot}:1:hang=200:once`);
        const running = io.write({ ...writeBatch([spec]), inPlace: Uint8Array.of(IN_PLACE_LENT) });
        await io.clock.sleep(50);
        source[MIB + 70_000] = 1 + (source[MIB + 70_000] ?? 0);
        const { status, faults } = await running;
        assert.deepEqual([...status], [1]);
        const segment = Math.floor((MIB + 70_000) / SEGMENT_BYTES) * SEGMENT_BYTES;
        assert.deepEqual(
          faults.map(({ kind, offsetBytes, lengthBytes }) => [kind, offsetBytes, lengthBytes]),
          [['changed', segment, SEGMENT_BYTES]],
        );
        setFaults('');
      }
      io.release(source);
    },
  );

  it('a failed flush is reported once and not retried', 2, async ({ io, member, setFaults, skip }) => {
    if (setFaults === undefined) return skip('no injected faults here');
    setFaults(`flush@${member(1).slot}:1:EIO:once`);
    const slots = [member(0).slot, member(1).slot];
    assert.deepEqual(
      (await io.flush(slots)).map(({ errno }) => errno),
      [0, 5],
    );
    setFaults(`flush:1:EAGAIN:once`);
    assert.deepEqual(
      (await io.flush([slots[0] ?? 0])).map(({ errno }) => errno),
      [11],
    );
    setFaults('');
  });

  it(
    'a hanging device holds the batch until it answers; the queue behind it obeys abort and deadline',
    1,
    async (world) => {
      const { io, member, write, setFaults, skip } = world;
      if (setFaults === undefined) return skip('no injected faults here');
      const bytes = pattern(4096, 20);
      const written = await write({
        copies: [{ slot: member(0).slot, offsetBytes: 0 }],
        pieces: [{ offsetBytes: 0, source: bytes }],
      });
      setFaults('read:1:hang=300:once');
      const controller = new AbortController();
      const reason = new Error('stop');
      const destination = io.allocate(4096);
      const start = io.clock.monotonicMs();
      const running = io.read(readBatch([reading(written, destination)], { signal: controller.signal }));
      await io.clock.sleep(20);
      controller.abort(reason);
      await assert.rejects(running, reason);
      assert.ok(io.clock.monotonicMs() - start >= 290, 'the promise waited for the transfer in flight');
      setFaults('');
    },
  );

  it(
    'every k-th failing request of a copying write is reported, up to success',
    2,
    async ({ io, member, setFaults, skip }) => {
      if (setFaults === undefined) return skip('no injected faults here');
      const source = pattern(2 * MIB, 21);
      const copies = [
        { slot: member(0).slot, offsetBytes: 0 },
        { slot: member(1).slot, offsetBytes: 0 },
      ];
      const spec = {
        copies,
        rawBytes: 2 * MIB,
        storedBytes: 2 * MIB,
        segmentBytes: SEGMENT_BYTES,
        pieces: [{ offsetBytes: 0, source }],
      };
      let k = 1;
      for (; k < 1000; k++) {
        setFaults(`write:${k}:EIO:once`);
        const result = await io.write(writeBatch([spec]));
        if (result.status[0] === 0) break;
        assert.equal(result.faults.length, 1, `k = ${k}`);
      }
      assert.ok(k > 2 && k < 1000, 'the sweep passed at least one request per copy and ended');
      setFaults('');
    },
  );
}

export function depth(it: It): void {
  it('16 streams of 4,096 ops each finish, all right', 2, async ({ io, member }) => {
    const bytes = pattern(4 * MIB, 22);
    const extents = 256;
    const specs = Array.from({ length: extents }, (_, index) => ({
      copies: [{ slot: member(index % 2).slot, offsetBytes: index * 16_384 }],
      rawBytes: 16_384,
      storedBytes: 16_384,
      segmentBytes: 16_384,
      pieces: [{ offsetBytes: 0, bytes: 16_384, source: bytes, sourceOffsetBytes: index * 16_384 }],
    }));
    const batch = writeBatch(specs);
    assert.ok((await io.write(batch)).status.every((status) => status === 0));
    const stream = async (seed: number): Promise<void> => {
      const destination = io.allocate(4096 * 512);
      const reads = Array.from({ length: 4096 }, (_, index) => {
        const extent = (index * 7 + seed) % extents;
        return {
          ...(specs[extent] as (typeof specs)[0]),
          sums: [batch.segmentSums[extent] ?? 0n],
          destination,
          wantedOffsetBytes: 512 * (index % 32),
          wantedBytes: 512,
          destinationOffsetBytes: index * 512,
        };
      });
      const result = await io.read(readBatch(reads, { priority: (seed % 3) as 0 | 1 | 2 }));
      assert.ok(result.status.every((status) => status === 0));
      for (let index = 0; index < 4096; index += 97) {
        const from = ((index * 7 + seed) % extents) * 16_384 + 512 * (index % 32);
        assert.ok(
          same(destination.subarray(index * 512, index * 512 + 512), bytes.subarray(from, from + 512)),
        );
      }
    };
    await Promise.all(Array.from({ length: 16 }, (_, seed) => stream(seed)));
  });
}
