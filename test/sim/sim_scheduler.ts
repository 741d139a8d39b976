// Virtual time and the order of events.
//
// Invariants
//   1. Events run one at a time in the order (time, order of arrival); an event's time is fixed when
//      it is scheduled. So a run is a function of its seed and of the engine's own steps.
//   2. Between two events the engine gets HOPS turns of the microtask queue, never a timer of the host.
//      When only timers of the engine (sleep) remain, each waits for one turn of the host's event
//      loop, so that a forgotten heartbeat cannot starve the process.
//   3. The trace hash is the CRC-64 of every event recorded, in order.
//
// The scheduler knows nothing of disks. `halt` (power cut) drops everything that is scheduled.

import { AssertionError } from '../../format/errors.js';
import { simCrc64 } from './sim_checksum.js';

/** Turns of the microtask queue between two events. */
const DEFAULT_HOPS = 4;
/** Events of one world at most: a run that needs more is taken for a livelock. */
const DEFAULT_EVENT_LIMIT = 200_000_000;
const TRACE_COLUMNS = 5;
const TRACE_ROWS = 512;

export interface ScheduledEvent {
  readonly time: number;
  readonly order: number;
  readonly timer: boolean;
  action: (() => void) | null;
}

const SETTLED = Promise.resolve();

export class SimScheduler {
  nowMs = 0;
  eventCount = 0;
  hops = DEFAULT_HOPS;
  eventLimit = DEFAULT_EVENT_LIMIT;
  /** Called after every event, before the engine reacts to it. The crash explorer looks here. */
  afterEvent: (() => void) | null = null;

  private readonly heap: ScheduledEvent[] = [];
  private nextOrder = 0;
  private deviceEvents = 0;
  private pumping = false;
  private halted = false;
  private hopsLeft = 0;
  private traceCrc = 0n;
  private traceFill = 0;
  private readonly traceRows = new Float64Array(TRACE_COLUMNS * TRACE_ROWS);
  private readonly traceBytes = new Uint8Array(this.traceRows.buffer);
  private readonly hop = (): void => this.onHop();
  private readonly step = (): void => this.onStep();

  /** Runs `action` after `delayMs` of virtual time. `timer` events do not keep devices busy. */
  schedule(delayMs: number, action: () => void, timer = false): ScheduledEvent {
    const event: ScheduledEvent = { time: this.nowMs + delayMs, order: this.nextOrder++, timer, action };
    if (this.halted) return event;
    this.push(event);
    if (!timer) this.deviceEvents += 1;
    this.pump();
    return event;
  }

  cancel(event: ScheduledEvent): void {
    if (event.action === null) return;
    event.action = null;
    if (!event.timer) this.deviceEvents -= 1;
  }

  get isHalted(): boolean {
    return this.halted;
  }

  /** Power cut: nothing that was scheduled ever happens. */
  halt(): void {
    this.halted = true;
    this.heap.length = 0;
    this.deviceEvents = 0;
  }

  /** Adds one row to the trace. `kind` and the columns are plain numbers. */
  trace(kind: number, a: number, b: number, c: number): void {
    const at = this.traceFill * TRACE_COLUMNS;
    this.traceRows[at] = kind;
    this.traceRows[at + 1] = this.nowMs;
    this.traceRows[at + 2] = a;
    this.traceRows[at + 3] = b;
    this.traceRows[at + 4] = c;
    this.traceFill += 1;
    if (this.traceFill === TRACE_ROWS) this.foldTrace();
  }

  /** CRC-64 of everything traced so far. */
  traceHash(): bigint {
    this.foldTrace();
    return this.traceCrc;
  }

  private foldTrace(): void {
    const filled = this.traceBytes.subarray(0, this.traceFill * TRACE_COLUMNS * 8);
    this.traceCrc = simCrc64(filled, this.traceCrc);
    this.traceFill = 0;
  }

  private pump(): void {
    if (this.pumping || this.heap.length === 0) return;
    this.pumping = true;
    if (this.deviceEvents === 0) {
      setImmediate(this.step);
      return;
    }
    this.hopsLeft = this.hops;
    void SETTLED.then(this.hop);
  }

  private onHop(): void {
    this.hopsLeft -= 1;
    if (this.hopsLeft > 0) void SETTLED.then(this.hop);
    else this.onStep();
  }

  private onStep(): void {
    this.pumping = false;
    const event = this.pop();
    if (event !== undefined && event.action !== null) {
      this.eventCount += 1;
      if (this.eventCount > this.eventLimit) throw new AssertionError('simulation passed its event limit');
      if (event.time > this.nowMs) this.nowMs = event.time;
      const action = event.action;
      event.action = null;
      if (!event.timer) this.deviceEvents -= 1;
      action();
      if (this.afterEvent !== null) this.afterEvent();
    }
    this.pump();
  }

  private before(left: ScheduledEvent, right: ScheduledEvent): boolean {
    return left.time < right.time || (left.time === right.time && left.order < right.order);
  }

  private push(event: ScheduledEvent): void {
    const heap = this.heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent]!;
      if (!this.before(event, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = event;
  }

  private pop(): ScheduledEvent | undefined {
    const heap = this.heap;
    const top = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.before(heap[child + 1]!, heap[child]!)) child += 1;
      if (!this.before(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return top;
  }
}
