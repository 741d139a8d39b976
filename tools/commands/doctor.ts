// ingot doctor: which path the bytes will take on this machine and why, and what to do where it is not the best.
//
// Invariants
//   1. What is said was tried here: the backend is opened, members are opened and asked, direct I/O is attempted.
//   2. Each line that is not good has a remedy.
//   3. Nothing is written. A store is looked at only when one is named, and for reading.

import type { CommandModule } from '../cli/program.js';
import {
  checkDevice,
  checkKernel,
  checkKeys,
  checkMember,
  checkNative,
  checkSystemLimits,
  type DoctorLine,
} from '../cli/doctor_checks.js';
import { checkGpu } from '../cli/doctor_gpu.js';
import { memberPaths } from '../cli/raw_members.js';
import { EXIT_FAILED, EXIT_OK, type Session } from '../cli/session.js';

export const register: CommandModule = (program, actions) => {
  program
    .command('doctor')
    .description('say which path bytes will take here, and why; with paths, for these devices or directories')
    .argument(
      '[paths...]',
      'members, devices or directories (default: the members of the store, if one is named)',
    )
    .action(async (given: readonly string[], options: unknown, command: unknown) => {
      const run = actions.action<object>(async (session) => doctor(session, given));
      await run(given, options, command);
    });
};

const MARKS = { ok: 'ok  ', note: 'note', bad: 'BAD ' } as const;

async function doctor(session: Session, given: readonly string[]): Promise<number> {
  const lines: DoctorLine[] = [
    ...checkKernel(),
    ...(await checkNative()),
    ...checkSystemLimits(),
    ...checkGpu(),
    ...checkKeys(),
  ];
  const places = given.length > 0 ? given : storePaths(session);
  for (const place of places) {
    try {
      for (const path of await memberPaths(place)) lines.push(...(await checkMember(path)));
    } catch {
      // A place without members: the file system itself is what there is to look at.
      lines.push(...(await checkDevice(place)));
    }
  }
  session.out.object('ingot.doctor/1', {
    healthy: lines.every(({ state }) => state !== 'bad'),
    checks: lines,
  });
  for (const { state, what, finding, remedy } of lines) {
    session.out.line(`${MARKS[state]}  ${what}: ${finding}`);
    if (remedy !== null) session.out.line(`        remedy: ${remedy}`);
  }
  return lines.some(({ state }) => state === 'bad') ? EXIT_FAILED : EXIT_OK;
}

function storePaths(session: Session): readonly string[] {
  try {
    return [session.storePath()];
  } catch {
    return [];
  }
}
