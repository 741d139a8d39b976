// Members that come and go as the crash explorer sees them: each operation cut at every I/O.
//
// What users see must not change with any of them, and whatever was cut short can be finished afterwards: the check of
// a recovered store brings every member back, places what is short, and holds fsck to silence.

import { RESILVER_START_DELAY_MS } from '../../engine/repair/limits.js';
import type { Store } from '../../engine/store.js';
import { assert } from '../../format/errors.js';
import type { SimIo } from '../sim/sim_io.js';
import { StoreModel, type StoreOp } from '../sim/store_model.js';
import { isUnformatted, StoreSession, type StoreShape } from '../sim/store_session.js';
import type { CrashTarget, Session } from './explorer.js';

export type MemberOp =
  | StoreOp
  | { readonly kind: 'add'; readonly path: string }
  | { readonly kind: 'leave' | 'offline' | 'online'; readonly member: number }
  /** `walk`: nothing is asked; time passes until the writer has done by itself what it has to (members.md M14). */
  | { readonly kind: 'settle' | 'resilver' | 'walk' };

const PUT: StoreOp = { kind: 'put', run: 'a', objects: [{ name: 'x', byteLength: 20_000, seed: 1 }] };
/** More than 32 sums: a page of sums has to be placed as well. */
const LARGE: StoreOp = { kind: 'put', run: 'b', objects: [{ name: 'w', byteLength: 160 * 1024, seed: 3 }] };

/** Lives of a mirror of two, with a third member at hand. Every prefix is a workload of its own. */
export const MEMBER_LIVES: readonly (readonly MemberOp[])[] = [
  [
    LARGE,
    { kind: 'offline', member: 1 },
    PUT,
    { kind: 'online', member: 1 },
    { kind: 'settle' },
    { kind: 'resilver' },
  ],
  [PUT, { kind: 'offline', member: 0 }, LARGE, { kind: 'online', member: 0 }, { kind: 'settle' }],
  [
    LARGE,
    { kind: 'add', path: 'm2' },
    { kind: 'settle' },
    { kind: 'leave', member: 0 },
    { kind: 'resilver' },
    { kind: 'settle' },
  ],
  [
    { kind: 'offline', member: 1 },
    { kind: 'add', path: 'm2' },
    { kind: 'leave', member: 1 },
    LARGE,
    { kind: 'settle' },
    { kind: 'resilver' },
  ],
];

/** Lives in which nobody asks for the walk: a member returns, joins or leaves, and the writer sees to it. */
export const WALKED_LIVES: readonly (readonly MemberOp[])[] = [
  [LARGE, { kind: 'offline', member: 1 }, PUT, { kind: 'online', member: 1 }, { kind: 'walk' }],
  [LARGE, { kind: 'add', path: 'm2' }, { kind: 'leave', member: 0 }, { kind: 'walk' }],
];

/** The lives cut after each of their operations, shortest first. */
export function memberWorkloads(lives = MEMBER_LIVES): MemberOp[][] {
  return lives.flatMap((life) => life.map((_, index) => life.slice(0, index + 1)));
}

/** `isWalked`: what was cut short is finished by the next writer alone, and not by commands. */
export function membersTarget(shape: StoreShape, isWalked = false): CrashTarget<MemberOp> {
  const paths = [...shape.members, 'm2'];
  const withThird = { ...shape, members: paths };
  return {
    name: 'members of a mirror',
    probe: { kind: 'put', run: 'probe', objects: [{ name: 'p', byteLength: 6000, seed: 77 }] },
    create: async (io: SimIo) =>
      new MembersSession(await StoreSession.create(io, shape, true), shape, isWalked),
    open: async (io: SimIo) => new MembersSession(await StoreSession.open(io, withThird), shape, isWalked),
    model: (ops) => StoreModel.after(ops.filter(isStoreOp)).dump(),
    mayBeUnformatted: isUnformatted,
  };
}

function isStoreOp(op: MemberOp): op is StoreOp {
  return !['add', 'leave', 'offline', 'online', 'settle', 'resilver', 'walk'].includes(op.kind);
}

class MembersSession implements Session<MemberOp> {
  readonly #session: StoreSession;
  readonly #shape: StoreShape;
  readonly #isWalked: boolean;

  constructor(session: StoreSession, shape: StoreShape, isWalked: boolean) {
    this.#session = session;
    this.#shape = shape;
    this.#isWalked = isWalked;
  }

  get #store(): Store {
    return this.#session.store;
  }

  async apply(op: MemberOp): Promise<void> {
    if (isStoreOp(op)) return this.#session.apply(op);
    if (op.kind === 'add') await this.#store.addMember({ path: op.path, sizeBytes: this.#shape.memberBytes });
    else if (op.kind === 'leave') await this.#store.leaveMember(op.member);
    else if (op.kind === 'offline') await this.#store.offlineMember(op.member);
    else if (op.kind === 'online') await this.#store.onlineMember(op.member);
    else if (op.kind === 'settle') await this.#store.settleMembers();
    else if (op.kind === 'resilver') await resilver(this.#store);
    else await walked(this.#store);
    return undefined;
  }

  dump(): Promise<string> {
    return this.#session.dump();
  }

  /** Finishes what was cut short, then nothing may be found; what users see stays what it was. */
  async check(): Promise<readonly string[]> {
    const early = (await this.#session.check()).filter((finding) => !finding.startsWith('warn E_DEGRADED'));
    const before = await this.dump();
    for (const { index, state } of this.#store.info.members)
      if (['stale', 'faulted', 'missing'].includes(state)) await this.#bringBack(index);
    if (this.#isWalked) await walked(this.#store);
    else {
      await this.#store.settleMembers();
      await resilver(this.#store);
      await this.#store.settleMembers();
    }
    const owed = (await this.#store.resilverState()) === null ? [] : ['copies are owed still'];
    const out = this.#store.info.members.filter(({ state }) => state !== 'online' && state !== 'detached');
    const late = await this.#session.check();
    const changed = (await this.dump()) === before ? [] : ['what users see changed with the members'];
    return [
      ...early,
      ...out.map(({ index, state }) => `member ${index} is ${state}`),
      ...late,
      ...changed,
      ...owed,
    ];
  }

  async #bringBack(index: number): Promise<void> {
    const entry = this.#store.catalog.superblock.members[index];
    // One that was asked to leave goes on leaving; the others return.
    if (entry !== undefined && (entry.flags & 1) === 0) await this.#store.onlineMember(index);
  }

  close(): Promise<void> {
    return this.#session.close();
  }
}

/** Virtual time that a walk over these stores may take. */
const WALK_MS = 600_000;

/** Lets time pass until the writer rests with everything done. */
async function walked(store: Store): Promise<void> {
  const { clock } = store.catalog.io;
  const endMs = clock.monotonicMs() + WALK_MS;
  do await clock.sleep(RESILVER_START_DELAY_MS + 1);
  while (store.stats().resilver?.state !== 'idle' && clock.monotonicMs() < endMs);
  const { state, error } = store.stats().resilver ?? { state: 'absent', error: null };
  assert(state === 'idle', `the writer ends its walk: ${state}, ${error}`);
}

async function resilver(store: Store): Promise<void> {
  for await (const event of store.resilver()) void event;
}
