// ingot load: reads a version into memory, the host's or a GPU's, and says how fast and by which path.
//
// Invariants
//   1. Every byte is verified, as in any read; nothing is written anywhere.
//   2. The clock runs from the first look at the version's tensors until the last byte is in place; memory is taken
//      before, and a first run for warming up is not counted when there are several.
//   3. With --compare every byte is read back from the GPU and compared with what the CPU reads.

import { availableParallelism } from 'node:os';
import type { BufferDesc, DeviceBuffer, HostBuffer, IoPath, Store, Version } from '../../engine/index.js';
import { StoreError } from '../../format/errors.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';
import type { Session } from '../cli/session.js';
import { usageError } from '../cli/values.js';
import { faultText } from '../cli/views.js';

interface Options {
  readonly device?: string;
  readonly path?: string;
  readonly runs?: string;
  readonly inFlight?: string;
  readonly compare?: boolean;
}

/** Tensors start on multiples of it, as in memory from cuMemAlloc. */
const ALIGNMENT_BYTES = 256;
const COMPARE_BYTES = 64 * 1024 * 1024;
const RUNS_MAX = 1000;

export const register: CommandModule = (program, actions) => {
  program
    .command('load')
    .description('read a version into memory, verified, and say how fast: --device cuda:0 for a GPU')
    .argument('<ref>', 'run@tag, run@step, run or v:ID')
    .option('--device <name>', 'cpu or cuda:N', 'cpu')
    .option('--path <path>', 'demand a path: pinned for a GPU; io_uring, threads, buffered for the host')
    .option('--runs <count>', 'load so often (with more than one, a first one is not counted)', '1')
    .option('--in-flight <bytes>', 'bytes being read or landed and not taken')
    .option('--compare', 'read back from the GPU and compare every byte with what the CPU reads')
    .action(
      actions.action<Options>(async (session, [ref = ''], options) => {
        await session.withStore('r', async (store) => {
          const version = await store.get(ref, { signal: session.signal });
          await load(session, store, version, options);
        });
        return undefined;
      }),
    );
};

interface Run {
  readonly seconds: number;
  readonly coreSeconds: number;
}

async function load(session: Session, store: Store, version: Version, options: Options): Promise<void> {
  const device = deviceOf(options.device ?? 'cpu');
  const runs = Number(options.runs ?? '1');
  if (!Number.isInteger(runs) || runs < 1 || runs > RUNS_MAX)
    throw usageError(`--runs ${options.runs}: must be 1 to ${RUNS_MAX}.`);
  const plan = layout(version);
  await using memory: HostBuffer | DeviceBuffer =
    device === null
      ? await store.alloc(plan.bytes)
      : await store.alloc(plan.bytes, { type: 'cuda', id: device });
  const measured: Run[] = [];
  for (let run = runs > 1 ? -1 : 0; run < runs; run++) {
    const one = await once(session, version, plan.places, memory, options);
    if (run >= 0) measured.push(one);
  }
  if (options.compare === true) await compare(session, version, plan.places, memory);
  report(session, store, version, options, measured);
}

function deviceOf(name: string): number | null {
  if (name === 'cpu') return null;
  const id = /^cuda(?::(\d{1,2}))?$/.exec(name);
  if (id === null) throw usageError(`--device ${name}: must be cpu or cuda:N.`);
  return Number(id[1] ?? '0');
}

function layout(version: Version): { places: ReadonlyMap<string, number>; bytes: number } {
  const places = new Map<string, number>();
  let at = 0;
  for (const name of version.names) {
    places.set(name, at);
    at += Math.ceil(version.tensor(name).byteLength / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  }
  return { places, bytes: Math.max(at, ALIGNMENT_BYTES) };
}

const placeIn = (memory: HostBuffer | DeviceBuffer, at: number, bytes: number): Uint8Array | BufferDesc =>
  'bytes' in memory ? memory.bytes.subarray(at, at + bytes) : memory.at(at, bytes);

async function once(
  session: Session,
  version: Version,
  places: ReadonlyMap<string, number>,
  memory: HostBuffer | DeviceBuffer,
  options: Options,
): Promise<Run> {
  const before = process.cpuUsage();
  const start = performance.now();
  const tensors = version.load(({ name, byteLength }) => placeIn(memory, places.get(name) ?? 0, byteLength), {
    signal: session.signal,
    onFault: (fault) => session.log('warn', faultText(fault)),
    ...(options.path === undefined ? {} : { path: options.path as IoPath }),
    ...(options.inFlight === undefined ? {} : { maxInFlight: Number(options.inFlight) }),
  });
  for await (const tensor of tensors) session.log('debug', tensor.name);
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(before);
  return { seconds, coreSeconds: (user + system) / 1e6 };
}

async function compare(
  session: Session,
  version: Version,
  places: ReadonlyMap<string, number>,
  memory: HostBuffer | DeviceBuffer,
): Promise<void> {
  if ('bytes' in memory) throw usageError('--compare is for --device cuda:N.');
  for (const name of version.names) {
    const tensor = version.tensor(name);
    for (let offset = 0; offset < tensor.byteLength; offset += COMPARE_BYTES) {
      const length = Math.min(COMPARE_BYTES, tensor.byteLength - offset);
      const there = new Uint8Array(length);
      await memory.copyTo(there, { byteOffset: (places.get(name) ?? 0) + offset, signal: session.signal });
      const here = new Uint8Array(length);
      await tensor.readInto(here, { offset, length, signal: session.signal });
      if (Buffer.compare(there, here) === 0) continue;
      const wrong = there.findIndex((byte, index) => byte !== here[index]);
      throw new StoreError('E_CORRUPT', `${name} differs on the GPU from byte ${offset + wrong} on`, {
        where: { object: version.id, tensor: name, offsetBytes: offset + wrong },
      });
    }
  }
}

function report(
  session: Session,
  store: Store,
  version: Version,
  options: Options,
  measured: readonly Run[],
): void {
  const bytes = version.names.reduce((sum, name) => sum + version.tensor(name).byteLength, 0);
  const rates = measured.map(({ seconds }) => bytes / 1e9 / seconds).sort((a, b) => a - b);
  const median = rates[Math.floor(rates.length / 2)] ?? 0;
  const cost = measured.map(({ coreSeconds }) => coreSeconds / (bytes / 1e9)).sort((a, b) => a - b);
  const coreSecondsPerGb = cost[Math.floor(cost.length / 2)] ?? 0;
  const { byPath, gpu } = store.stats();
  const paths = Object.keys(byPath);
  session.out.object('ingot.load/1', {
    version: version.id,
    device: options.device ?? 'cpu',
    rawBytes: bytes,
    tensors: version.names.length,
    gigabytesPerSecond: {
      median,
      least: rates[0],
      most: rates.at(-1),
      all: measured.map((run) => bytes / 1e9 / run.seconds),
    },
    coreSecondsPerGb,
    cores: availableParallelism(),
    byPath,
    gpu,
    isCompared: options.compare === true,
  });
  const spread =
    rates.length > 1 ? ` (${rates[0]?.toFixed(2)} to ${rates.at(-1)?.toFixed(2)}, ${rates.length} runs)` : '';
  const what = `${formatBytes(bytes)} in ${version.names.length} tensors to ${options.device ?? 'cpu'}`;
  const how = `${coreSecondsPerGb.toFixed(3)} core-s/GB, by ${paths.join(' + ')}`;
  session.out.line(`${version.id}: ${what}, verified: ${median.toFixed(2)} GB/s${spread}, ${how}`);
  const onGpu = formatBytes(gpu.decodedOnGpuBytes);
  const onHost = formatBytes(gpu.decodedOnHostBytes);
  if (gpu.decodedOnGpuBytes + gpu.decodedOnHostBytes > 0)
    session.out.line(
      `decoded on the GPU ${onGpu}, by the CPU on the way ${onHost}, suspects ${gpu.suspects}`,
    );
  if (options.compare === true) session.out.line('every byte on the GPU is what the CPU reads');
}
