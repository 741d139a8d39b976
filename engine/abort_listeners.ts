// Many operations listening to one AbortSignal, through one real listener.
//
// A caller may hand the same signal to thousands of reads and commits. Node warns of a leak at the eleventh listener
// of one target, although nothing leaks; so there is one listener per signal, and the rest is a set of ours.
//
// Invariants
//   1. A listener runs at most once, and never after its remover was called.
//   2. A signal without listeners of ours carries no real listener.
//   3. Listeners run in the order in which they came.
//
// It never aborts anything itself and keeps no signal alive.

const listenersBySignal = new WeakMap<
  AbortSignal,
  { readonly calls: Set<() => void>; readonly fire: () => void }
>();

/** Calls `listener` when the signal aborts. Returns the remover; without a signal both do nothing. */
export function onAbort(signal: AbortSignal | undefined, listener: () => void): () => void {
  if (signal === undefined) return () => undefined;
  const known = listenersBySignal.get(signal) ?? register(signal);
  // A call of its own, so that one function registered twice is two listeners.
  const call = (): void => listener();
  known.calls.add(call);
  return () => {
    if (!known.calls.delete(call) || known.calls.size > 0) return;
    signal.removeEventListener('abort', known.fire);
    listenersBySignal.delete(signal);
  };
}

function register(signal: AbortSignal): { readonly calls: Set<() => void>; readonly fire: () => void } {
  const calls = new Set<() => void>();
  const fire = (): void => {
    listenersBySignal.delete(signal);
    for (const call of [...calls]) {
      if (calls.delete(call)) call();
    }
  };
  const entry = { calls, fire };
  signal.addEventListener('abort', fire, { once: true });
  listenersBySignal.set(signal, entry);
  return entry;
}
