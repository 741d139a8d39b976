// Progress of a long operation, for people and for programs, on stderr.
//
// Three shapes of the same numbers: a bar that redraws itself on a terminal, plain lines where
// stderr is a file or a log, and JSON lines for `--progress=json`.
//
// Invariants
//   1. Rates are in GB/s of 10^9 bytes: `now` over the last second, `mean` from start to now.
//      Nothing is extrapolated before MIN_RATE_SPAN_MS have passed; until then a rate is absent.
//   2. Output is bounded whatever the caller does: at most 10 redraws, 4 JSON lines or 1 plain
//      line in a second, one line each, never wider than the terminal.
//   3. `finish` always writes the final numbers, also when nothing was written before.
//   4. Time comes from the caller's `nowMs`, so that tests need no clock.
//   5. Nothing that a store contains (names, labels) can move the cursor: control characters are
//      replaced before they are written.
//
// It never reads the world, never keeps the process alive (no timers) and never throws for a
// stream that is gone.

export type ProgressMode = 'bar' | 'plain' | 'json' | 'none';

/** The part of a stream that is used: process.stderr fits. */
export interface ProgressStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface ProgressOptions {
  readonly stream: ProgressStream;
  readonly mode: ProgressMode;
  /** What is being done, such as `import llama-3-8b`. */
  readonly label: string;
  /** Bytes in the whole operation; null when unknown. May be set later by `setTotal`. */
  readonly totalBytes: number | null;
  /** Monotonic milliseconds. Default: performance.now. */
  readonly nowMs?: () => number;
  /** Whether to colour the bar. Default: a terminal, and NO_COLOR is unset or empty. */
  readonly color?: boolean;
}

/** Numbers so far: all are totals since the start, not differences. */
export interface ProgressUpdate {
  readonly bytes: number;
  readonly items?: number;
  /** The path that the bytes took (an IoPath of the engine's vocabulary). */
  readonly path?: string;
  /** What the operation is doing now, such as `verify`. */
  readonly phase?: string;
}

const BAR_INTERVAL_MS = 100;
const JSON_INTERVAL_MS = 250;
const PLAIN_INTERVAL_MS = 1_000;
/** Span of the `now` rate. */
const RATE_WINDOW_MS = 1_000;
/** Samples closer together than this share a place; the window holds at most 21. */
const SAMPLE_INTERVAL_MS = 50;
const MIN_RATE_SPAN_MS = 200;
const DEFAULT_COLUMNS = 80;
const MIN_BAR_CELLS = 8;
const MAX_BAR_CELLS = 40;
const MAX_LABEL_CHARS = 40;

/** `--progress` as given, with the stream, to a mode. 'auto' and undefined choose by the stream. */
export function chooseProgressMode(flag: string | undefined, stream: ProgressStream): ProgressMode | null {
  switch (flag) {
    case undefined:
    case 'auto':
      return stream.isTTY === true ? 'bar' : 'plain';
    case 'bar':
    case 'plain':
    case 'json':
    case 'none':
      return flag;
    default:
      return null;
  }
}

/** Bytes for people: decimal units, three digits. `1234567890` is `1.23 GB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  if (unit === 0) return `${Math.round(value)} B`;
  return `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${units[unit]}`;
}

/** GB/s of 10^9 bytes, two digits; three below 0.1. */
export function formatRate(bytesPerSecond: number): string {
  const gigabytes = bytesPerSecond / 1e9;
  return `${gigabytes.toFixed(gigabytes < 0.0995 ? 3 : 2)} GB/s`;
}

/** `0:07`, `12:30`, `3:05:00`. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  const pad = (value: number): string => String(value).padStart(2, '0');
  if (parts[0] === 0) return `${parts[1]}:${pad(parts[2] ?? 0)}`;
  return `${parts[0]}:${pad(parts[1] ?? 0)}:${pad(parts[2] ?? 0)}`;
}

/** Text from a store or a user, made harmless for a terminal. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, '\uFFFD');
}

interface Sample {
  readonly atMs: number;
  readonly bytes: number;
}

/** One operation's meter. Call `update` as often as you like, `finish` once. */
export class ProgressMeter {
  readonly #stream: ProgressStream;
  readonly #mode: ProgressMode;
  readonly #label: string;
  readonly #nowMs: () => number;
  readonly #color: boolean;
  readonly #startedMs: number;
  #totalBytes: number | null;
  #samples: Sample[] = [];
  #latest: ProgressUpdate = { bytes: 0 };
  #writtenMs = Number.NEGATIVE_INFINITY;
  #finished = false;

  constructor(options: ProgressOptions) {
    this.#stream = options.stream;
    this.#mode = options.mode;
    this.#label = printable(options.label);
    this.#totalBytes = options.totalBytes;
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#color = options.color ?? (options.stream.isTTY === true && !process.env['NO_COLOR']);
    this.#startedMs = this.#nowMs();
    this.#samples.push({ atMs: this.#startedMs, bytes: 0 });
  }

  /** The total became known, or changed, after the start. */
  setTotal(totalBytes: number | null): void {
    this.#totalBytes = totalBytes;
  }

  /** Takes the numbers so far and writes when it is time to. Fields left out keep their last value. */
  update(update: ProgressUpdate): void {
    if (this.#finished) return;
    this.#latest = { ...this.#latest, ...update };
    const nowMs = this.#nowMs();
    this.#sample(nowMs);
    const intervalMs =
      this.#mode === 'bar' ? BAR_INTERVAL_MS : this.#mode === 'json' ? JSON_INTERVAL_MS : PLAIN_INTERVAL_MS;
    // The first plain line comes after a second: what takes less needs none but the last.
    const sinceMs =
      nowMs - (this.#mode === 'plain' ? Math.max(this.#writtenMs, this.#startedMs) : this.#writtenMs);
    if (sinceMs < intervalMs) return;
    this.#writtenMs = nowMs;
    this.#render(nowMs, false);
  }

  /** Writes the final numbers and ends the line. Later calls do nothing. */
  finish(update?: ProgressUpdate): void {
    if (this.#finished) return;
    if (update !== undefined) this.#latest = { ...this.#latest, ...update };
    const nowMs = this.#nowMs();
    this.#sample(nowMs);
    this.#finished = true;
    this.#render(nowMs, true);
  }

  /** Takes the bar away, so that an error can be printed on a clean line. */
  clear(): void {
    if (this.#mode === 'bar' && !this.#finished) this.#write('\r\x1b[K');
    this.#finished = true;
  }

  #sample(nowMs: number): void {
    const last = this.#samples[this.#samples.length - 1];
    if (last === undefined || nowMs - last.atMs >= SAMPLE_INTERVAL_MS) {
      this.#samples.push({ atMs: nowMs, bytes: this.#latest.bytes });
    }
    // Keep one sample from before the window, so that the span covers it whole.
    while (this.#samples.length > 2 && nowMs - (this.#samples[1]?.atMs ?? nowMs) >= RATE_WINDOW_MS) {
      this.#samples.shift();
    }
  }

  /** Bytes a second over the last second; null while it is too early to say. */
  #currentRate(nowMs: number): number | null {
    const first = this.#samples[0];
    if (first === undefined || nowMs - first.atMs < MIN_RATE_SPAN_MS) return null;
    return ((this.#latest.bytes - first.bytes) * 1000) / (nowMs - first.atMs);
  }

  #meanRate(nowMs: number, final: boolean): number | null {
    const spanMs = nowMs - this.#startedMs;
    if (spanMs <= 0 || (!final && spanMs < MIN_RATE_SPAN_MS)) return null;
    return (this.#latest.bytes * 1000) / spanMs;
  }

  #etaSeconds(nowMs: number): number | null {
    const rate = this.#meanRate(nowMs, false);
    if (this.#totalBytes === null || rate === null || rate <= 0) return null;
    return Math.max(0, this.#totalBytes - this.#latest.bytes) / rate;
  }

  #render(nowMs: number, final: boolean): void {
    if (this.#mode === 'json') this.#write(`${JSON.stringify(this.#json(nowMs, final))}\n`);
    if (this.#mode === 'plain') this.#write(`${this.#label}: ${this.#fields(nowMs, final).join(', ')}\n`);
    if (this.#mode === 'bar') this.#write(`\r${this.#bar(nowMs, final)}\x1b[K${final ? '\n' : ''}`);
  }

  #json(nowMs: number, final: boolean): Record<string, unknown> {
    return {
      type: 'progress',
      schema: 1,
      label: this.#label,
      phase: this.#latest.phase ?? null,
      bytes: this.#latest.bytes,
      totalBytes: this.#totalBytes,
      items: this.#latest.items ?? null,
      bytesPerSec: this.#currentRate(nowMs),
      meanBytesPerSec: this.#meanRate(nowMs, final),
      elapsedMs: Math.round(nowMs - this.#startedMs),
      etaSec: final ? 0 : this.#etaSeconds(nowMs),
      path: this.#latest.path ?? null,
      done: final,
    };
  }

  /** The numbers in falling order of importance; a narrow terminal loses the last ones first. */
  #fields(nowMs: number, final: boolean): string[] {
    const { bytes, phase, path } = this.#latest;
    const total = this.#totalBytes;
    const fields = [total === null ? formatBytes(bytes) : `${formatBytes(bytes)} of ${formatBytes(total)}`];
    const current = final ? null : this.#currentRate(nowMs);
    const mean = this.#meanRate(nowMs, final);
    const eta = this.#etaSeconds(nowMs);
    if (current !== null) fields.push(`${formatRate(current)} now`);
    if (mean !== null) fields.push(`${formatRate(mean)} mean`);
    if (final) fields.push(`in ${formatDuration((nowMs - this.#startedMs) / 1000)}`);
    else if (eta !== null) fields.push(`ETA ${formatDuration(eta)}`);
    if (path !== undefined) fields.push(printable(path));
    if (phase !== undefined && !final) fields.push(printable(phase));
    return fields;
  }

  /** One line that fits: label, bar, percent, then as many fields as there is room for. */
  #bar(nowMs: number, final: boolean): string {
    // The last column stays free: writing there wraps on some terminals.
    const columns = Math.max(1, (this.#stream.columns || DEFAULT_COLUMNS) - 1);
    const label = this.#label.slice(0, Math.min(MAX_LABEL_CHARS, columns));
    const total = this.#totalBytes;
    const fraction = total === null ? null : total === 0 ? 1 : Math.min(1, this.#latest.bytes / total);
    let text = label;
    // Rounded down: 100 % means all of it.
    if (fraction !== null) text += ` ${String(Math.floor(fraction * 100)).padStart(3)}%`;
    const reserve = fraction === null ? 0 : MIN_BAR_CELLS + 3;
    const fields: string[] = [];
    let width = text.length;
    for (const field of this.#fields(nowMs, final)) {
      if (width + 2 + field.length + reserve > columns) break;
      fields.push(field);
      width += 2 + field.length;
    }
    const cells = Math.min(MAX_BAR_CELLS, columns - width - 3);
    const bar = fraction === null || cells < MIN_BAR_CELLS ? '' : ` ${this.#cells(fraction, cells)}`;
    const line = [label + bar + text.slice(label.length), ...fields].join('  ');
    return bar === '' ? line.slice(0, columns) : line;
  }

  #cells(fraction: number, cells: number): string {
    const full = Math.floor(fraction * cells);
    const done = '#'.repeat(full);
    const rest = '-'.repeat(cells - full);
    return this.#color ? `[\x1b[36m${done}\x1b[0m${rest}]` : `[${done}${rest}]`;
  }

  #write(text: string): void {
    try {
      this.#stream.write(text);
    } catch {
      // Nobody reads progress any more (a closed pipe); the operation itself goes on.
    }
  }
}
