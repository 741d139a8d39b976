// The conformance suite over the native core, once per backend, and for members in memory where there is a RAM disk.

import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { NativeIo } from '../../engine/io/native_io.js';
import { ioConformance } from './io_suite.js';
import type { IoFixture } from './io_suite.js';

const RAM_DISK = '/dev/shm';
const PLACES = [
  { name: 'io_uring', parent: tmpdir(), options: { backend: 'io_uring' } },
  { name: 'threads', parent: tmpdir(), options: { backend: 'threads' } },
  // No backend is asked for: files in memory are then moved by the workers.
  { name: 'memory', parent: RAM_DISK, options: {} },
] as const;

for (const { name, parent, options } of PLACES) {
  if (!existsSync(parent)) {
    test(`${name}: the suite`, { skip: `no ${parent}` }, () => undefined);
    continue;
  }
  ioConformance(name, async (): Promise<IoFixture> => {
    const directory = await mkdtemp(join(parent, process.env['INGOT_TEST_PREFIX'] ?? 'ingot-conformance-'));
    const io = new NativeIo(options);
    let paths = 0;
    return {
      io,
      newPath: () => join(directory, `member-${paths++}`),
      async corrupt(path, offsetBytes, bytes) {
        const file = await open(path, 'r+');
        try {
          await file.write(bytes, 0, bytes.length, offsetBytes);
          await file.sync();
        } finally {
          await file.close();
        }
      },
      another: async () => new NativeIo(options),
      async makeSource(bytes) {
        const path = join(directory, `source-${paths++}`);
        await writeFile(path, bytes);
        return path;
      },
      setFaults: (rules) => io.configureFaults(rules),
      dispose: () => rm(directory, { recursive: true, force: true }),
    };
  });
}
