// ingot key: the key slots of an encrypted store, looked at without a key, added, removed and rotated with one.
//
// Invariants
//   1. Nothing secret is printed but a fresh recovery key, once (tools/cli/keys.ts).
//   2. A change needs a key that the store has, and is durable on every member that is here when it is told;
//      members that still hold the old slots are named.

import type { KeyChange, Store, StoreKey } from '../../engine/index.js';
import { type KeyOptions, giveRecoveryKey, withKey } from '../cli/keys.js';
import { warnOldKeys } from '../cli/old_keys.js';
import type { CommandModule } from '../cli/program.js';
import type { Session } from '../cli/session.js';
import { parseWhole, usageError } from '../cli/values.js';

interface AddOptions extends KeyOptions {
  readonly newKeyFile?: string;
  readonly newPassphraseFile?: string;
  readonly newPassphrase?: boolean;
  readonly newRecoveryKey?: boolean;
  readonly newKey?: string;
  readonly newPinFile?: string;
  readonly recoveryKeyOut?: string;
  readonly label?: string;
}
interface RotateCliOptions extends AddOptions {
  readonly slot?: string;
}
const SLOT_ID_MAX = 2 ** 32 - 1;

function newKeyOptions(options: AddOptions): KeyOptions {
  return {
    ...(options.newKeyFile === undefined ? {} : { keyFile: options.newKeyFile }),
    ...(options.newPassphraseFile === undefined ? {} : { passphraseFile: options.newPassphraseFile }),
    ...(options.newPassphrase === undefined ? {} : { passphrase: options.newPassphrase }),
    ...(options.newKey === undefined ? {} : { key: options.newKey }),
    ...(options.newPinFile === undefined ? {} : { pinFile: options.newPinFile }),
  };
}

async function rotateAll(
  session: Session,
  store: Store,
  opener: StoreKey,
  recoveryKeyOut: string | undefined,
): Promise<void> {
  const { keyEpoch, dropped, notErased } = await store.rotateMaster(opener, {
    onRecoveryKey: (text) => giveRecoveryKey(text, recoveryKeyOut),
  });
  const paths = notErased.map(({ path }) => path);
  const isComplete = paths.length === 0;
  session.out.object('ingot.key-rotate/1', { keyEpoch, dropped, isComplete, oldKeysOn: paths });
  session.out.line(`master key ${keyEpoch} is in use`);
  for (const { id, kind, label } of dropped)
    session.out.line(
      `slot ${id} (${kind}${label === '' ? '' : `, ${label}`}) is gone: add it again with its secret`,
    );
  warnOldKeys(session, paths);
}

function tellChange(session: Session, schema: string, what: string, change: KeyChange): void {
  session.out.object(schema, { slot: change.id, notRewritten: change.notRewritten });
  session.out.line(`key slot ${change.id} ${what}`);
  for (const path of change.notRewritten)
    session.log(
      'warn',
      `${path} is not here and holds the old key slots until it comes back or is destroyed`,
    );
}

export const register: CommandModule = (program, actions) => {
  const key = program
    .command('key')
    .description('list, add, remove and rotate the keys of an encrypted store');

  key
    .command('list')
    .description('show the key slots; needs no key')
    .action(
      actions.action<KeyOptions>(async (session) => {
        await session.withStore('r', async (store) => {
          const slots = store.listKeys();
          session.out.object('ingot.key-list/1', { slots });
          session.out.table(
            ['slot', 'kind', 'made', 'label'],
            slots.map(({ id, kind, createdAt, label }) => [String(id), kind, createdAt.toISOString(), label]),
          );
        });
        return undefined;
      }),
    );

  key
    .command('add')
    .description('make one more key, with a key that the store has')
    .option('--new-key-file <path>', 'a file of 32 bytes to 64 KiB, all of which is the key')
    .option('--new-passphrase-file <path>', 'a file with the passphrase')
    .option('--new-passphrase', 'type the passphrase')
    .option('--new-key <uri>', 'a key of a token (pkcs11:...) or of the TPM (tpm2:, tpm2:sha256:0,7)')
    .option('--new-pin-file <path>', "a file with that token's PIN (else it is typed)")
    .option('--new-recovery-key', 'make a recovery key')
    .option('--recovery-key-out <path>', 'write the recovery key to this new file, not to the terminal')
    .option('--label <text>', 'a name for it, in the clear')
    .action(
      actions.action<AddOptions>(async (session, _args, options) => {
        const added = newKeyOptions(options);
        const label = options.label === undefined ? {} : { label: options.label };
        await withKey(options, (opener) =>
          withKey(
            added,
            async (fresh) => {
              if (opener === undefined)
                throw usageError('A key that the store has is needed.', 'ingot key add --help');
              if ((fresh === undefined) !== (options.newRecoveryKey === true))
                throw usageError('Say what to add: one of the --new options.', 'ingot key add --help');
              await session.withStore('rw', async (store) => {
                const change =
                  fresh === undefined
                    ? await store.addRecoveryKey(
                        opener,
                        (text) => giveRecoveryKey(text, options.recoveryKeyOut),
                        label,
                      )
                    : await store.addKey(opener, fresh, label);
                tellChange(session, 'ingot.key-add/1', 'is made', change);
              });
            },
            'new',
          ),
        );
        return undefined;
      }),
    );

  key
    .command('rotate')
    .description(
      'another master key, under your key and a new recovery key; with --slot another secret for one',
    )
    .option('--slot <number>', 'the slot that gets another secret, as key list shows it')
    .option('--new-key-file <path>', 'with --slot: a file of 32 bytes to 64 KiB, all of which is the key')
    .option('--new-passphrase-file <path>', 'with --slot: a file with the passphrase')
    .option('--new-passphrase', 'with --slot: type the passphrase')
    .option(
      '--new-key <uri>',
      'with --slot: a key of a token (pkcs11:...) or of the TPM (tpm2:, tpm2:sha256:0,7)',
    )
    .option('--new-pin-file <path>', "a file with that token's PIN (else it is typed)")
    .option('--recovery-key-out <path>', 'write the new recovery key to this new file, not to the terminal')
    .option('--label <text>', 'with --slot: a name for it, in the clear')
    .action(
      actions.action<RotateCliOptions>(async (session, _args, options) => {
        const label = options.label === undefined ? {} : { label: options.label };
        await withKey(options, (opener) =>
          withKey(
            newKeyOptions(options),
            async (fresh) => {
              if (opener === undefined)
                throw usageError('A key that the store has is needed.', 'ingot key rotate --help');
              if ((fresh === undefined) !== (options.slot === undefined))
                throw usageError(
                  '--slot and one of the --new options go together.',
                  'ingot key rotate --help',
                );
              await session.withStore('rw', async (store) => {
                if (fresh === undefined) return rotateAll(session, store, opener, options.recoveryKeyOut);
                const id = parseWhole('slot', options.slot ?? '', 1, SLOT_ID_MAX);
                const change = await store.rotateSlot(opener, id, fresh, label);
                return tellChange(
                  session,
                  'ingot.key-rotate/1',
                  `is made in the place of slot ${id}`,
                  change,
                );
              });
            },
            'new',
          ),
        );
        return undefined;
      }),
    );

  key
    .command('rm')
    .description('remove a key slot, with a key that the store has; the last one stays')
    .argument('<slot>', 'its number, as key list shows it')
    .action(
      actions.action<KeyOptions>(async (session, [slot = ''], options) => {
        const id = parseWhole('slot', slot, 1, SLOT_ID_MAX);
        await withKey(options, async (opener) => {
          if (opener === undefined)
            throw usageError('A key that the store has is needed.', 'ingot key rm --help');
          await session.withStore('rw', async (store) => {
            tellChange(session, 'ingot.key-rm/1', 'is gone', await store.removeKey(opener, id));
          });
        });
        return undefined;
      }),
    );
};
