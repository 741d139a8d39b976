// One child process of the test runner: bounded in time and output, and gone when it is over.
//
// Invariants
//   1. A child is the head of its own process group; whatever it started ends with it.
//   2. At the time limit it gets SIGTERM, then SIGKILL after KILL_GRACE_MS.
//   3. At most MAX_KEPT_OUTPUT_CHARS of its output are kept, the last ones.
//
// It knows nothing of tests.
import { spawn } from 'node:child_process';

/** After SIGTERM, before SIGKILL. */
const KILL_GRACE_MS = 5_000;
/** Output of one process kept for the report of a failure. */
const MAX_KEPT_OUTPUT_CHARS = 64 * 1024;
/** Longest wait, after the exit, for the pipes to close. */
const DRAIN_LIMIT_MS = 2_000;

const running = new Set();

/** Runs one program; resolves with its exit, its last output and whether the limit ended it. */
export function runProcess(cwd, program, args, env, limitMs) {
  return new Promise((resolve) => {
    // Its own process group, so that what a test started ends with it.
    const child = spawn(program, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    running.add(child);
    let output = '';
    let timedOut = false;
    const keep = (chunk) => {
      output = (output + chunk).slice(-MAX_KEPT_OUTPUT_CHARS);
    };
    child.stdout.setEncoding('utf8').on('data', keep);
    child.stderr.setEncoding('utf8').on('data', keep);
    const end = (signal) => {
      try {
        process.kill(-child.pid, signal);
      } catch {
        // The group is gone already.
      }
    };
    let killTimer;
    const timer = setTimeout(() => {
      timedOut = true;
      end('SIGTERM');
      killTimer = setTimeout(() => end('SIGKILL'), KILL_GRACE_MS);
    }, limitMs);
    let ended = null;
    const settle = () => {
      clearTimeout(timer);
      clearTimeout(killTimer);
      running.delete(child);
      resolve({ code: ended?.code ?? null, signal: ended?.signal ?? null, output, timedOut });
    };
    child.on('error', (error) => {
      output += error.message;
      settle();
    });
    child.on('exit', (code, signal) => {
      ended = { code, signal };
      // A grandchild that holds the pipes would hold the run; without the group they close.
      end('SIGKILL');
      setTimeout(settle, DRAIN_LIMIT_MS).unref();
    });
    child.on('close', settle);
  });
}

/** Sends a signal to every process group that still runs. */
export function endAll(signal) {
  for (const child of running) {
    try {
      process.kill(-child.pid, signal);
    } catch {
      // Gone already.
    }
  }
}
