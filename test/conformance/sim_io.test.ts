// The conformance suite over the simulator: what the engine is tested on obeys the port as the native core does.

import type { FaultAction, FaultOperation } from '../sim/sim_faults.js';
import { SimWorld } from '../sim/sim_world.js';
import { ioConformance } from './io_suite.js';
import type { IoFixture } from './io_suite.js';

const ERRNOS: Readonly<Record<string, number>> = { EIO: 5, ENOSPC: 28, EAGAIN: 11, EINTR: 4 };

/** `read@slot:k:effect:once|sticky`, comma-separated, as ingot_fault_configure takes it. */
function addRules(world: SimWorld, pathOf: (slot: number) => string, rules: string): void {
  world.faults.clear();
  for (const rule of rules.split(',').filter((each) => each !== '')) {
    const [target = '', k = '1', effect = '', times = 'once'] = rule.split(':');
    const [operation = '', slot] = target.split('@');
    const [name = '', value = '0'] = effect.split('=');
    const errno = ERRNOS[name];
    world.faults.add({
      operation: operation as FaultOperation,
      action: errno === undefined ? (name as FaultAction) : 'errno',
      nth: Number(k),
      sticky: times === 'sticky',
      hangMs: Number(value),
      ...(errno === undefined ? {} : { errno }),
      ...(slot === undefined ? {} : { path: pathOf(Number(slot)) }),
    });
  }
}

for (const seed of [1, 2]) {
  ioConformance(`simulator, seed ${seed}`, async (): Promise<IoFixture> => {
    const world = new SimWorld({ seed });
    const io = world.process();
    let paths = 0;
    return {
      io,
      newPath: () => `member-${paths++}`,
      corrupt: async (path, offsetBytes, bytes) => world.overwrite(path, offsetBytes, bytes),
      another: async () => world.process(),
      async makeSource(bytes) {
        const path = `source-${paths++}`;
        world.addFile(path, bytes);
        return path;
      },
      setFaults: (rules) => addRules(world, (slot) => io.slots[slot]?.device.disk.path ?? '', rules),
      dispose: async () => undefined,
    };
  });
}
