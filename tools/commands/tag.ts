// ingot tag and ingot untag: names for versions, moved by compare-and-swap when asked.
//
// Invariants
//   1. With --expect the tag moves only if it is where the user says; the check and the move are one commit.
//   2. untag by a ref removes the tag only if it is on that very version.

import { StoreError } from '../../format/errors.js';
import { parseRef } from '../../format/keys.js';
import type { CommandModule } from '../cli/program.js';

interface Options {
  readonly expect?: string;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('tag')
    .description('point a tag at a version')
    .argument('<ref>', 'run@tag, run@step, run or v:ID')
    .argument('<tag>', 'name of the tag')
    .option('--expect <ref>', 'only if the tag is on this version now; none: only if it does not exist')
    .action(
      actions.action<Options>(async (session, [ref = '', tag = ''], options) => {
        await session.withStore('rw', async (store) => {
          const expect = options.expect === 'none' ? null : options.expect;
          await store.tag(ref, tag, { signal: session.signal, ...(expect === undefined ? {} : { expect }) });
          const version = await store.get(ref);
          session.out.object('ingot.tag/1', { run: version.run, tag, version: version.id });
          session.out.line(`${version.run}@${tag} is ${version.id}`);
        });
        return undefined;
      }),
    );

  program
    .command('untag')
    .description('remove a tag')
    .argument('<run>', 'the run, or a ref whose version has the tag')
    .argument('<tag>', 'name of the tag')
    .action(
      actions.action<object>(async (session, [ref = '', tag = '']) => {
        await session.withStore('rw', async (store) => {
          const isRun = !ref.includes('@') && parseRef(ref).kind === 'tag';
          let run = ref;
          if (!isRun) {
            const version = await store.get(ref, { signal: session.signal });
            run = version.run;
            if (!version.tags.includes(tag)) {
              throw new StoreError('E_CONFLICT', `${ref} (${version.id}) does not have the tag ${tag}.`, {
                where: { object: ref },
                next: `ingot ls ${run}`,
              });
            }
          }
          await store.untag(run, tag, { signal: session.signal });
          session.out.object('ingot.untag/1', { run, tag });
          session.out.line(`${run}@${tag} is gone`);
        });
        return undefined;
      }),
    );
};
