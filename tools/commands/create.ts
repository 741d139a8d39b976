// ingot create: makes a store over files of a directory, or over named devices and files.
//
// Invariants
//   1. The redundancy is never a surprise: with one copy, what a lost member costs is said in plain words.
//   2. A store that is there is not overwritten without --force.
//   3. A recovery key is handed out before the store is made: no store is sealed under keys that nobody has.

import { create, type EncryptOptions, open, type StoreKey } from '../../engine/index.js';
import { type KeyOptions, giveRecoveryKey, withKey } from '../cli/keys.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';
import { collect, parseRedundancy, parseSize, parseWhole, usageError } from '../cli/values.js';
import { MEMBER_HEADINGS, memberRow, storeJson } from '../cli/views.js';

interface Options extends KeyOptions {
  readonly members?: string;
  readonly size?: string;
  readonly member?: readonly string[];
  readonly redundancy?: string;
  readonly chunk?: string;
  readonly force?: boolean;
  readonly encrypt?: boolean;
  readonly recoveryKeyOut?: string;
  readonly label?: string;
}
interface MemberSpec {
  readonly path: string;
  readonly sizeBytes?: number;
}
const MAX_MEMBERS = 64;

export const register: CommandModule = (program, actions) => {
  program
    .command('create')
    .description('make a store')
    .argument('[dir]', 'directory for member files (0.member, 1.member, ...)')
    .option('--members <n>', 'member files to make in DIR')
    .option('--size <size>', 'bytes of each member file, such as 8GiB')
    .option('--member <path>', 'a block device or file to take as a member; may be given again', collect)
    .option(
      '--redundancy <n>',
      'copies of each chunk by default: 1, 2 or 3 (default: 2 with two or more members)',
    )
    .option('--chunk <size>', 'bytes of a chunk by default, 64KiB to 64MiB (default 4MiB)')
    .option(
      '--encrypt',
      'seal what it will hold, under the key that the key options name (SAFETY.md says what stays open)',
    )
    .option('--recovery-key-out <path>', 'write the recovery key to this new file, not to the terminal')
    .option('--label <text>', 'a name for the key, in the clear')
    .option(
      '--force',
      'take what is partitioned, signed or a member already; its content is lost (never a device in use)',
    )
    .addHelpText(
      'after',
      '\nExamples:\n  ingot create ./weights --members 2 --size 40GiB --redundancy 1\n' +
        '  ingot create --member /dev/nvme0n1 --member /dev/nvme1n1',
    )
    .action(
      actions.action<Options>(async (session, [directory = ''], options) => {
        const { location, members } = specify(directory, options);
        const redundancy = options.redundancy === undefined ? undefined : parseRedundancy(options.redundancy);
        const copies = redundancy ?? (members.length >= 2 ? 2 : 1);
        if (copies > members.length) {
          throw usageError(`--redundancy ${copies}: needs as many members, and ${members.length} are named.`);
        }
        await withKey(
          options,
          async (key) => {
            const encrypt = encryption(options, key);
            await create(location, {
              members,
              redundancy: copies as 1 | 2 | 3,
              force: options.force === true,
              signal: session.signal,
              ...(options.chunk === undefined ? {} : { chunkBytes: parseSize('--chunk', options.chunk) }),
              ...(encrypt === undefined ? {} : { encrypt }),
            });
          },
          'new',
        );
        const store = await open(location, { mode: 'r', signal: session.signal });
        try {
          const { info } = store;
          session.out.object('ingot.create/1', storeJson(info));
          session.out.line(
            `store ${info.uuid}: ${formatBytes(info.capacityBytes)} on ${info.members.length} members`,
          );
          if (store.encryption !== 'none')
            session.out.line(
              'encrypted: data, names and metadata; lengths, places and labels of keys are in the clear',
            );
          session.out.line(redundancyText(copies, info.members.length));
          session.out.table(MEMBER_HEADINGS, info.members.map(memberRow));
        } finally {
          await store.close();
        }
        return undefined;
      }),
    );
};

/** With --encrypt a key option is needed, and without it none is taken. */
function encryption(options: Options, key: StoreKey | undefined): EncryptOptions | undefined {
  if (options.encrypt !== true) {
    if (key === undefined && options.recoveryKeyOut === undefined) return undefined;
    throw usageError('A key is given without --encrypt.', 'ingot create --help');
  }
  if (key === undefined || key.kind === 'recovery') {
    throw usageError(
      '--encrypt needs a key.',
      'Give --key-file, --passphrase-file, --passphrase or --key; a recovery key is made besides.',
    );
  }
  const onRecoveryKey = (text: Uint8Array): void => giveRecoveryKey(text, options.recoveryKeyOut);
  return { key, onRecoveryKey, ...(options.label === undefined ? {} : { label: options.label }) };
}

function specify(directory: string, options: Options) {
  const size = options.size === undefined ? {} : { sizeBytes: parseSize('--size', options.size) };
  if (options.member !== undefined) {
    if (directory !== '' || options.members !== undefined) {
      throw usageError('Give either DIR with --members and --size, or --member PATH for each member.');
    }
    const members: MemberSpec[] = options.member.map((path) => ({ path, ...size }));
    return { location: { members: options.member }, members };
  }
  if (directory === '')
    throw usageError('No place is named: give DIR, or --member PATH.', 'ingot create --help');
  if (options.members === undefined || options.size === undefined) {
    throw usageError(
      'DIR needs --members N and --size S.',
      `ingot create ${directory} --members 2 --size 8GiB`,
    );
  }
  const count = parseWhole('--members', options.members, 1, MAX_MEMBERS);
  const digits = String(count - 1).length;
  const members: MemberSpec[] = Array.from({ length: count }, (_, index) => ({
    path: `${String(index).padStart(digits, '0')}.member`,
    ...size,
  }));
  return { location: directory, members };
}

/** What one lost member costs. */
export function redundancyText(copies: number, memberCount: number): string {
  if (copies >= 2) {
    return `redundancy ${copies}: every chunk is on ${copies} members; any ${copies - 1} of them may be lost`;
  }
  if (memberCount === 1) return 'redundancy 1: there is one member, and what it loses is lost';
  return (
    'redundancy 1: every chunk is on one member only; if one member is lost, so is about ' +
    `1/${memberCount} of every version, which makes each of them incomplete`
  );
}
