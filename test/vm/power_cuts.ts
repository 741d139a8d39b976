// Power cuts of a whole machine: a guest writes a mirrored store on four NVMe drives with volatile write caches, and
// the power goes at random moments; what each cut leaves is opened by the real engine and held against the oracle.
//
//   serve drives -> boot -> the writer works -> cut, cut, .. -> kill the machine -> judge -> boot on what a cut left
//
// Invariants
//   1. A cut is one instant of all drives and of the log: all in one turn of this thread (nbd_server.ts).
//   2. Each cut gives several images: seeded damage of every unflushed write, everything unflushed lost, and everything
//      lost but on one drive. Every image is judged by kill_judge.ts with a native open of its own.
//   3. The next boot starts from a damaged image of the last cut: the guest recovers it on real device nodes.
//   4. Everything that is drawn follows from the seed; the guest's own timing does not, so a failing image is kept.
//
// It makes no claim about a drive that lies about flushes (fault model X3).

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  cpSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { open } from '../../engine/index.js';
import { type JudgeReport, KillJudge, newJudgeReport } from '../crash/kill_judge.js';
import { LOG_SECTOR_BYTES, type LogLine } from '../crash/kill_model.js';
import { Prng } from '../sim/prng.js';
import { BLOCK_BYTES, type DamageChooser, type DiskImage, SimDisk } from '../sim/sim_disk.js';
import { dropAll, randomDamage } from '../sim/sim_world.js';
import { type NbdDrive, NbdServer } from './nbd_server.js';

const TOP = fileURLToPath(new URL('../../../', import.meta.url));
const DRIVES = 4;
/** Small, so that freed space is soon written again. */
const DRIVE_BYTES = 24 * 1024 * 1024;
const LOG_BYTES = 16 * 1024 * 1024;
/** Changes of the drives between two cuts, at most: a commit of the writer makes about fifty. */
const CHANGES_BETWEEN_CUTS_MAX = 120;
const CHANGES_IN_OPEN_MAX = 12;
/** A guest that made no cut possible by then hangs (an emulated processor on a busy machine is slow). */
const BOOT_LIMIT_MS = 400_000;
const NUMBERS_PER_BOOT = 10_000;

export interface PowerCutOptions {
  readonly boots: number;
  readonly cutsPerBoot: number;
  readonly redundancy: 2 | 3;
  readonly seed: number;
  /** The drives answer flushes and forget them: acknowledged data must then be found missing. */
  readonly areLying?: boolean;
  /** For sockets and images; small, best a RAM disk. */
  readonly scratch: string;
  readonly onBoot?: (line: string) => void;
}

export interface PowerCutReport extends JudgeReport {
  boots: number;
  cuts: number;
  images: number;
  /** Writes that no flush covered, summed over the cuts: what the cache could lose. */
  unflushedWrites: number;
  /** Cuts while the guest opened the store, before its writer was ready. */
  cutsInOpen: number;
}

interface Cut {
  readonly lines: readonly LogLine[];
  readonly images: readonly (readonly DiskImage[])[];
}

export async function cutPowerAgainAndAgain(options: PowerCutOptions): Promise<PowerCutReport> {
  const folder = mkdtempSync(join(options.scratch, 'ingot-power-'));
  try {
    return await new PowerCuts(folder, options).run();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function emptyImage(number: number, sizeBytes: number): DiskImage {
  return { sizeBytes, failureDomain: `drive${number}`, blocks: new Map() };
}

/** The lines that the writer's log drive holds. */
function readLog(disk: SimDisk): LogLine[] {
  const bytes = Buffer.alloc(LOG_BYTES);
  disk.read(0, bytes);
  const lines: LogLine[] = [];
  let at = 0;
  while (at < bytes.length && bytes[at] !== 0) {
    const end = bytes.indexOf('\n', at);
    if (end < 0) break;
    lines.push(JSON.parse(bytes.toString('utf8', at, end)) as LogLine);
    at = Math.ceil((end + 1) / LOG_SECTOR_BYTES) * LOG_SECTOR_BYTES;
  }
  return lines;
}

/** A member file with the blocks of an image; holes where it has none. */
function writeMember(path: string, image: DiskImage): void {
  const file = openSync(path, 'w');
  ftruncateSync(file, image.sizeBytes);
  for (const [index, block] of image.blocks) writeSync(file, block, 0, block.length, index * BLOCK_BYTES);
  closeSync(file);
}

class PowerCuts {
  readonly #folder: string;
  readonly #options: PowerCutOptions;
  readonly #prng: Prng;
  readonly #report: PowerCutReport = {
    boots: 0,
    cuts: 0,
    images: 0,
    unflushedWrites: 0,
    cutsInOpen: 0,
    ...newJudgeReport(),
  };
  #base: readonly DiskImage[] = Array.from({ length: DRIVES }, (_unused, i) => emptyImage(i, DRIVE_BYTES));
  #judge = new KillJudge(this.#report);

  constructor(folder: string, options: PowerCutOptions) {
    this.#folder = folder;
    this.#options = options;
    this.#prng = new Prng(options.seed);
  }

  async run(): Promise<PowerCutReport> {
    for (let boot = 1; boot <= this.#options.boots; boot += 1) {
      const startedAt = performance.now();
      const cuts = await this.#oneBoot(boot);
      const bootedMs = performance.now() - startedAt;
      await this.#judgeCuts(cuts, boot);
      this.#report.boots = boot;
      const judgedMs = performance.now() - startedAt - bootedMs;
      this.#options.onBoot?.(
        `boot ${boot}: ${cuts.length} cuts in ${(bootedMs / 1000).toFixed(0)} s, judged in ` +
          `${(judgedMs / 1000).toFixed(0)} s; ${JSON.stringify(this.#report)}`,
      );
    }
    return this.#report;
  }

  /** Runs one machine until it was cut often enough; the last cut is its end. */
  async #oneBoot(boot: number): Promise<Cut[]> {
    const drives = this.#base.map(
      (image, i): NbdDrive => ({
        name: `drive${i}`,
        disk: new SimDisk(`drive${i}`, image),
        isLying: this.#options.areLying === true,
      }),
    );
    const log: NbdDrive = { name: 'log', disk: new SimDisk('log', emptyImage(DRIVES, LOG_BYTES)) };
    const cuts: Cut[] = [];
    // An open of a sound store changes little: the first cut comes early, to fall into the recovery.
    let left = this.#prng.between(1, boot > 1 ? CHANGES_IN_OPEN_MAX : CHANGES_BETWEEN_CUTS_MAX);
    let enough = (): void => undefined;
    const done = new Promise<void>((resolve) => {
      enough = resolve;
    });
    const server = new NbdServer([...drives, log], this.#prng.fork(), (drive) => {
      if (drive === log || cuts.length >= this.#options.cutsPerBoot) return;
      left -= 1;
      if (left > 0) return;
      const lines = readLog(log.disk);
      // The first boot makes the store: until it says that it is there, nothing can be demanded.
      if (boot > 1 || lines.length > 0) cuts.push(this.#cut(drives, lines));
      left = this.#prng.between(1, CHANGES_BETWEEN_CUTS_MAX);
      if (cuts.length >= this.#options.cutsPerBoot) enough();
    });
    const socket = join(this.#folder, 'nbd');
    await server.listen(socket);
    const machine = this.#start(boot, socket);
    try {
      await Promise.race([done, this.#unexpectedEnd(machine)]);
    } finally {
      await server.close();
      if (machine.exitCode === null && machine.pid !== undefined) process.kill(-machine.pid, 'SIGKILL');
      if (machine.exitCode === null && machine.signalCode === null) await once(machine, 'exit');
    }
    return cuts;
  }

  #start(boot: number, socket: string): ChildProcess {
    const first = boot * NUMBERS_PER_BOOT;
    const words = [`vm.seed=${this.#options.seed * 1_000 + boot}`, `vm.first=${first}`];
    if (boot === 1) words.push(`vm.create=${this.#options.redundancy}`);
    return spawn('bash', [join(TOP, 'test/vm/run.sh'), join(TOP, 'test/vm/guest_power_cut.sh')], {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        NBD: socket,
        DISKS: this.#folder,
        SMP: '1',
        MEM: '1536',
        LIMIT: `${BOOT_LIMIT_MS / 1000}`,
        APPEND: words.join(' '),
      },
    });
  }

  /** Rejects when the machine ends before it was cut. */
  #unexpectedEnd(machine: ChildProcess): Promise<never> {
    const said: Buffer[] = [];
    machine.stdout?.on('data', (chunk: Buffer) => said.push(chunk));
    machine.stderr?.on('data', (chunk: Buffer) => said.push(chunk));
    return new Promise((_resolve, reject) => {
      machine.once('exit', (code, signal) => {
        if (signal === 'SIGKILL') return;
        reject(
          new Error(`the machine ended by itself (${code}): ${Buffer.concat(said).toString().slice(-4000)}`),
        );
      });
    });
  }

  #cut(drives: readonly NbdDrive[], lines: readonly LogLine[]): Cut {
    const kept = `drive${this.#prng.below(DRIVES)}`;
    const keepOne: DamageChooser = (_write, path) => (path === kept ? 'keep' : 'drop');
    const images = [randomDamage(this.#prng), dropAll, keepOne].map((choose) =>
      drives.map(({ disk }) => disk.crashImage(choose, this.#prng)),
    );
    this.#report.cuts += 1;
    if (!lines.some((line) => line.type === 'ready')) this.#report.cutsInOpen += 1;
    for (const { disk } of drives) this.#report.unflushedWrites += disk.pendingWrites.length;
    return { lines, images };
  }

  async #judgeCuts(cuts: readonly Cut[], boot: number): Promise<void> {
    let last: { image: readonly DiskImage[]; judge: KillJudge } | null = null;
    for (const [number, cut] of cuts.entries()) {
      for (const [damage, image] of cut.images.entries()) {
        const judge = this.#judge.fork();
        const where = `seed ${this.#options.seed} boot ${boot} cut ${number + 1} damage ${damage}`;
        await this.#judgeImage(image, judge, cut.lines, where);
        this.#report.images += 1;
        if (number === cuts.length - 1 && damage === 0) last = { image, judge };
      }
    }
    if (last === null) throw new Error(`boot ${boot} ended without a cut`);
    // The guest recovers the damaged image itself, on its own device nodes.
    this.#base = last.image;
    this.#judge = last.judge;
  }

  async #judgeImage(
    image: readonly DiskImage[],
    judge: KillJudge,
    lines: readonly LogLine[],
    where: string,
  ): Promise<void> {
    const members = join(this.#folder, 'members');
    mkdirSync(members);
    for (const [number, disk] of image.entries()) writeMember(join(members, `${number}.member`), disk);
    try {
      const underWay = judge.replay(lines);
      const store = await open(members, { mode: 'rw' });
      try {
        await judge.judge(store, 'rw', underWay, where);
      } finally {
        await store.close();
      }
    } catch (error) {
      const kept = join(TOP, 'build', 'vm', 'failed');
      rmSync(kept, { recursive: true, force: true });
      for (const [number, disk] of image.entries()) writeMember(join(members, `${number}.member`), disk);
      cpSync(members, kept, { recursive: true });
      throw new Error(`${where} (members kept in ${kept}): ${String(error)}`, { cause: error });
    } finally {
      rmSync(members, { recursive: true });
    }
  }
}
