// The command line of the benchmarks.
//
// Invariants
//   1. An unknown subject, option or value is refused with E_USAGE before anything is measured.

import { tmpdir } from 'node:os';
import { parseArgs } from 'node:util';
import { parseSize, parseWhole, usageError } from '../cli/values.js';

export const SUBJECTS = ['io', 'catalog', 'peers', 'redundancy', 'codec', 'crypto', 'crc', 'format'] as const;
export type Subject = (typeof SUBJECTS)[number];
export const ROW_GROUPS = ['read', 'write', 'mirrored', 'import', 'memory'] as const;
export type RowGroup = (typeof ROW_GROUPS)[number];
export const REDUNDANCY_ROWS = ['write', 'read', 'scrub', 'heal', 'foreground', 'rebuild', 'peer'] as const;
export type RedundancyRow = (typeof REDUNDANCY_ROWS)[number];
export const CODEC_ROWS = ['samples', 'deltas', 'store'] as const;
export type CodecRow = (typeof CODEC_ROWS)[number];
export const PLACE_NAMES = ['disk', 'RAM'] as const;
export type PlaceName = (typeof PLACE_NAMES)[number];
const MEMBER_COUNTS = ['1', '2'] as const;

export const USAGE = `usage: ingot bench ${SUBJECTS.join('|')} [options]   (in a checkout: npm run bench -- ...)
  --dir DIRECTORY   on the disk to measure (default .ingot-data)
  --ram DIRECTORY   on a RAM disk (default /dev/shm; 'none' leaves it out)
  --size SIZE       of the model in each run (default 1GiB)
  --pairs N         runs of either side (default 5)
  --sweep N         rounds of each fio setting before the pairs (default 1; 0 takes settings that were best before)
  --minutes N       of io: begins no round after so many minutes (default: no limit)
  --only LIST       of io: ${ROW_GROUPS.join(', ')}; of redundancy:
                    ${REDUNDANCY_ROWS.join(', ')};
                    of codec: ${CODEC_ROWS.join(', ')} (default all)
  --places LIST     of io, codec, crypto, redundancy: disk, RAM (default both; io imports across where both are asked)
  --members LIST    of io: 1, 2 (default both)
  --versions N      versions in the catalog (default 1000000)
  --tensors N       tensors in one version (default 100000)
  --seed N          of models, orders and references (default 1)
  --json            one JSON object on stdout`;

/** What an error of use says to do next. */
const HELP = 'ingot bench --help';

export interface BenchOptions {
  readonly subject: Subject;
  readonly directory: string;
  readonly ramDirectory: string | null;
  readonly sizeBytes: number;
  readonly pairs: number;
  readonly sweepRounds: number;
  /** Groups of rows of `io`, the places and the numbers of members to measure. */
  readonly only: readonly RowGroup[];
  /** Rows of `redundancy`. */
  readonly redundancyRows: readonly RedundancyRow[];
  /** Rows of `codec`. */
  readonly codecRows: readonly CodecRow[];
  readonly places: readonly PlaceName[];
  readonly memberCounts: readonly number[];
  readonly limitMinutes: number;
  readonly versions: number;
  readonly tensors: number;
  readonly seed: number;
  readonly json: boolean;
}

export function parseOptions(argv: readonly string[]): BenchOptions {
  const text = { type: 'string' } as const;
  let parsed: ReturnType<typeof parse>;
  const parse = () =>
    parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        dir: text,
        ram: text,
        size: text,
        pairs: text,
        minutes: text,
        sweep: text,
        versions: text,
        tensors: text,
        seed: text,
        only: text,
        places: text,
        members: text,
        json: { type: 'boolean' },
      },
    });
  try {
    parsed = parse();
  } catch (error) {
    throw usageError(error instanceof Error ? error.message : String(error), HELP);
  }
  const { values, positionals } = parsed;
  const subject = SUBJECTS.find((each) => each === positionals[0]);
  if (subject === undefined || positionals.length > 1)
    throw usageError(`Say what to measure: one of ${SUBJECTS.join(', ')}.`, HELP);
  const whole = (option: string, given: string | undefined, otherwise: number, least: number): number =>
    given === undefined ? otherwise : parseWhole(`--${option}`, given, least, 10_000_000);
  const listed = <T extends string>(option: string, given: string | undefined, known: readonly T[]): T[] => {
    if (given === undefined) return [...known];
    return given.split(',').map((text) => {
      const found = known.find((each) => each === text);
      if (found === undefined) throw usageError(`--${option} takes ${known.join(', ')}.`, HELP);
      return found;
    });
  };
  const ram = values.ram ?? '/dev/shm';
  return {
    subject,
    directory: values.dir ?? (subject === 'crc' || subject === 'format' ? tmpdir() : '.ingot-data'),
    ramDirectory: ram === 'none' ? null : ram,
    sizeBytes: parseSize('--size', values.size ?? '1GiB'),
    pairs: whole('pairs', values.pairs, 5, 1),
    sweepRounds: whole('sweep', values.sweep, 1, 0),
    only:
      subject === 'redundancy' || subject === 'codec'
        ? [...ROW_GROUPS]
        : listed('only', values.only, ROW_GROUPS),
    redundancyRows:
      subject === 'redundancy' ? listed('only', values.only, REDUNDANCY_ROWS) : [...REDUNDANCY_ROWS],
    codecRows: subject === 'codec' ? listed('only', values.only, CODEC_ROWS) : [...CODEC_ROWS],
    places: listed('places', values.places, PLACE_NAMES),
    memberCounts: listed('members', values.members, MEMBER_COUNTS).map(Number),
    limitMinutes: values.minutes === undefined ? Infinity : whole('minutes', values.minutes, 1, 1),
    versions: whole('versions', values.versions, 1_000_000, 1_000),
    tensors: whole('tensors', values.tensors, 100_000, 1),
    seed: whole('seed', values.seed, 1, 0),
    json: values.json ?? false,
  };
}
