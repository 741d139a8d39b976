// The conformance suite over the native core, once per backend.

import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NativeIo } from '../../engine/io/native_io.js';
import { ioConformance } from './io_suite.js';
import type { IoFixture } from './io_suite.js';

for (const backend of ['io_uring', 'threads'] as const) {
  ioConformance(backend, async (): Promise<IoFixture> => {
    const directory = await mkdtemp(join(tmpdir(), 'ingot-conformance-'));
    const io = new NativeIo({ backend });
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
      another: async () => new NativeIo({ backend }),
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
