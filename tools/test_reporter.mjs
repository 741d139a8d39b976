// A node:test reporter for tools/run_tests.mjs: one JSON line for each test that ended.
//
// Invariants
//   1. Suites are not tests and are not counted; a suite that fails by itself (a hook threw) is,
//      because no test of it would say so.
//   2. A test marked `todo` that passes or fails is reported as skipped, with the note.
//   3. Each line stands alone, so what a process wrote before it died still counts.

/** Longest message kept of one failure. */
const MAX_MESSAGE_CHARS = 8_192;

function describe(error) {
  const cause = error?.cause ?? error;
  const text =
    typeof cause === 'object' && cause !== null
      ? (cause.stack ?? cause.message ?? String(cause))
      : String(cause);
  return text.slice(0, MAX_MESSAGE_CHARS);
}

const reasonOf = (value) => (typeof value === 'string' && value !== '' ? value : 'no reason given');

export default async function* reporter(source) {
  const names = [];
  for await (const event of source) {
    const data = event.data;
    if (event.type === 'test:start') {
      names.length = data.nesting;
      names[data.nesting] = data.name;
    }
    if (event.type !== 'test:pass' && event.type !== 'test:fail') continue;
    const name = [...names.slice(0, data.nesting), data.name].join(' > ');
    const failed = event.type === 'test:fail';
    // A suite or parent that failed only because something inside it did was reported already.
    if (failed && data.details?.error?.failureType === 'subtestsFailed') continue;
    if (data.details?.type === 'suite' && !failed && data.skip === undefined) continue;
    if (data.skip !== undefined) yield line({ outcome: 'skipped', name, reason: reasonOf(data.skip) });
    else if (data.todo !== undefined)
      yield line({ outcome: 'skipped', name, reason: `to do: ${reasonOf(data.todo)}` });
    else if (failed) yield line({ outcome: 'failed', name, message: describe(data.details?.error) });
    else yield line({ outcome: 'passed', name });
  }
}

const line = (value) => `${JSON.stringify(value)}\n`;
