// A training loop with mirrored checkpoints that loses a member, goes on, replaces it, and resumes from `latest`.
//
// It prints what happens and ends with an error if a single byte of a resumed state is not what was saved.
// Usage: node examples/mirrored-checkpoint/train.mjs [DIRECTORY]    (needs `npm run build`)

import { mkdtempSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { open } from '../../dist/engine/index.js';

const RUN = 'exp42/ckpt';
const SAVE_EVERY = 5;
const ELEMENTS = 1 << 20;
const MEMBER_BYTES = 128 * 1024 * 1024;

/** The state of the model: a few megabytes that depend on every step taken. */
function newState() {
  return { step: 0, weights: new Float32Array(ELEMENTS), momentum: new Float32Array(ELEMENTS) };
}

/** One step of training: deterministic, so that a resumed run can be compared with one that was never cut. */
function train(state) {
  state.step += 1;
  const rate = 1 / state.step;
  for (let at = 0; at < ELEMENTS; at++) {
    const gradient = Math.fround(((at * 2654435761 + state.step * 40503) >>> 8) / 2 ** 24 - 0.5);
    state.momentum[at] = Math.fround(0.9 * state.momentum[at] + gradient);
    state.weights[at] = Math.fround(state.weights[at] - rate * state.momentum[at]);
  }
}

async function save(store, state) {
  const tx = await store.begin(RUN, { step: state.step, redundancy: 2 });
  const shape = [ELEMENTS];
  await tx.put('weights', bytesOf(state.weights), { dtype: 'F32', shape });
  await tx.put('momentum', bytesOf(state.momentum), { dtype: 'F32', shape });
  // Resolves when the version, and `latest` with it, survive a power cut.
  await tx.commit();
}

async function resume(store) {
  const version = await store.get(`${RUN}@latest`);
  const state = newState();
  await version.tensor('weights').readInto(bytesOf(state.weights));
  await version.tensor('momentum').readInto(bytesOf(state.momentum));
  state.step = version.step;
  return state;
}

const bytesOf = (array) => new Uint8Array(array.buffer);

/** Trains up to a step, saving every SAVE_EVERY steps. */
async function run(store, state, untilStep) {
  while (state.step < untilStep) {
    train(state);
    if (state.step % SAVE_EVERY !== 0) continue;
    await save(store, state);
    console.log(`  step ${state.step} saved; store is ${store.info.state}`);
  }
}

/** The same steps without a store: what must come out. */
function expected(step) {
  const state = newState();
  while (state.step < step) train(state);
  return state;
}

function check(state) {
  const wanted = expected(state.step);
  for (const name of ['weights', 'momentum'])
    if (Buffer.compare(bytesOf(state[name]), bytesOf(wanted[name])) !== 0)
      throw new Error(`${name} of step ${state.step} is not what was saved`);
  console.log(`  resumed at step ${state.step}: every byte is as it was saved`);
}

async function drain(job) {
  for (;;) {
    const next = await job.next();
    if (next.done) return next.value;
    if (next.value.type === 'finding') throw next.value.error;
  }
}

async function main(directory) {
  const path = (index) => join(directory, `${index}.member`);
  const members = [0, 1].map((index) => ({ path: path(index), sizeBytes: MEMBER_BYTES }));
  const open_ = (indexes, options = {}) => open({ members: indexes.map(path) }, { mode: 'rw', ...options });

  console.log('training on two members');
  let store = await open_([0, 1], { create: { members, redundancy: 2 } });
  const state = newState();
  await run(store, state, 10);
  await store.close();

  console.log('member 1 is lost; the job starts again and goes on');
  renameSync(path(1), join(directory, '1.lost'));
  store = await open_([0]);
  const second = await resume(store);
  check(second);
  await run(store, second, 20);

  console.log('a new member takes its place');
  const index = await store.addMember({ path: path(2), sizeBytes: MEMBER_BYTES });
  // A member is in sync when the catalog has its copies there; then the lost one may be given up.
  await store.settleMembers();
  await store.leaveMember(1);
  const report = await drain(store.resilver());
  await store.settleMembers();
  if (report.underReplicated > 0 || report.onGivenUp > 0) throw new Error('chunks are short of copies');
  console.log(
    `  member ${index}: ${(report.movedBytes / 1e6).toFixed(1)} MB copied; store is ${store.info.state}`,
  );
  await store.close();

  console.log('member 0 is lost as well; the job resumes on the replacement alone');
  renameSync(path(0), join(directory, '0.lost'));
  store = await open_([2], { force: true });
  const third = await resume(store);
  check(third);
  await run(store, third, 25);
  await store.close();
}

const given = process.argv[2];
const directory = given ?? mkdtempSync(join(tmpdir(), 'ingot-mirrored-checkpoint-'));
if (given !== undefined) mkdirSync(given, { recursive: true });
try {
  await main(directory);
} finally {
  if (given === undefined) rmSync(directory, { recursive: true, force: true });
}
