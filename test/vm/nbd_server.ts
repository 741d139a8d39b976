// Drives for a virtual machine, served over NBD from this process, whose write cache a test can lose at any moment.
//
// Each drive is a SimDisk: what a flush covered is durable, everything else is in a volatile cache. The server has
// one thread, so the requests of all drives have one order, and an image taken between two of them is what one power
// cut at that instant leaves of all drives together. That is the replay of a host-side write log (dm-log-writes), with
// the damage rules of the simulator: each unflushed write kept, dropped, torn at 512 bytes or scrambled.
//
// Invariants
//   1. A flush makes durable what was *answered* before the flush arrived, and nothing else: replies are delayed a
//      little, so a guest that flushes before its writes were answered loses them.
//   2. A read sees every write that was answered, in the cache or not.
//   3. Nothing is served after `close`; requests on the wire are dropped, as by a cut.
//
// The protocol is the fixed newstyle handshake with simple replies (NetworkBlockDevice/nbd, doc/proto.md).

import { createServer, type Server, type Socket } from 'node:net';
import type { Prng } from '../sim/prng.js';
import { SimDisk } from '../sim/sim_disk.js';

const MAGIC = 0x4e42444d41474943n;
const OPTION_MAGIC = 0x49484156454f5054n;
const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
const REQUEST_MAGIC = 0x25609513;
const REPLY_MAGIC = 0x67446698;
const HANDSHAKE_BYTES = 18;
const OPTION_BYTES = 16;
const REQUEST_BYTES = 28;
const FLAGS_FIXED_NO_ZEROES = 3;
const OPTION_ABORT = 2;
const OPTION_INFO = 6;
const OPTION_GO = 7;
const REPLY_ACK = 1;
const REPLY_INFO = 3;
const REPLY_UNSUPPORTED = 0x8000_0001;
const REPLY_UNKNOWN = 0x8000_0006;
/** HAS_FLAGS, SEND_FLUSH, SEND_FUA. */
const TRANSMISSION_FLAGS = 1 | 4 | 8;
const COMMAND_READ = 0;
const COMMAND_WRITE = 1;
const COMMAND_DISCONNECT = 2;
const COMMAND_FLUSH = 3;
const COMMAND_FUA = 1;
const ERRNO_EINVAL = 22;
const REQUEST_BYTES_MAX = 32 * 1024 * 1024;
/** A write or flush is answered after 0..2 ms, so that several are under way at a cut. */
const DELAY_MS_MAX = 2;

export interface NbdDrive {
  readonly name: string;
  readonly disk: SimDisk;
  /** Answers flushes and forgets them (fault model X3): for a test that must find losses. */
  readonly isLying?: boolean;
}

/** Called after every request that changed a drive. */
export type OnChange = (drive: NbdDrive, kind: 'write' | 'flush') => void;

export class NbdServer {
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private closed = false;
  private readonly drives: ReadonlyMap<string, NbdDrive>;
  private readonly prng: Prng;
  private readonly onChange: OnChange;

  constructor(drives: readonly NbdDrive[], prng: Prng, onChange: OnChange) {
    this.drives = new Map(drives.map((drive) => [drive.name, drive]));
    this.prng = prng;
    this.onChange = onChange;
    this.server = createServer((socket) => this.accept(socket));
  }

  listen(path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen(path, resolve);
    });
  }

  async close(): Promise<void> {
    this.closed = true;
    for (const socket of this.sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private accept(socket: Socket): void {
    this.sockets.add(socket);
    socket.on('close', () => this.sockets.delete(socket));
    // The other end is killed without warning: that is what the test does.
    socket.on('error', () => socket.destroy());
    const hello = Buffer.alloc(HANDSHAKE_BYTES);
    hello.writeBigUInt64BE(MAGIC, 0);
    hello.writeBigUInt64BE(OPTION_MAGIC, 8);
    hello.writeUInt16BE(FLAGS_FIXED_NO_ZEROES, 16);
    socket.write(hello);
    const session = new NbdSession(socket, this.drives, this.prng, this.onChange, () => this.closed);
    socket.on('data', (chunk) => session.receive(chunk));
  }
}

type Stage = 'flags' | 'options' | 'requests' | 'over';

class NbdSession {
  private stage: Stage = 'flags';
  private chunks: Buffer[] = [];
  private held = 0;
  private drive: NbdDrive | null = null;
  private readonly socket: Socket;
  private readonly drives: ReadonlyMap<string, NbdDrive>;
  private readonly prng: Prng;
  private readonly onChange: OnChange;
  private readonly isClosed: () => boolean;

  constructor(
    socket: Socket,
    drives: ReadonlyMap<string, NbdDrive>,
    prng: Prng,
    onChange: OnChange,
    isClosed: () => boolean,
  ) {
    this.socket = socket;
    this.drives = drives;
    this.prng = prng;
    this.onChange = onChange;
    this.isClosed = isClosed;
  }

  receive(chunk: Buffer): void {
    if (this.isClosed()) return;
    this.chunks.push(chunk);
    this.held += chunk.length;
    while (this.step());
  }

  /** The first `count` bytes when they are all there; they stay. */
  private peek(count: number): Buffer | null {
    if (this.held < count) return null;
    if (this.chunks.length > 1) this.chunks = [Buffer.concat(this.chunks, this.held)];
    return this.chunks[0]?.subarray(0, count) ?? null;
  }

  private drop(count: number): void {
    this.peek(count);
    const rest = this.chunks[0]?.subarray(count);
    this.chunks = rest === undefined || rest.length === 0 ? [] : [rest];
    this.held -= count;
  }

  private step(): boolean {
    if (this.stage === 'flags') {
      if (this.peek(4) === null) return false;
      this.drop(4);
      this.stage = 'options';
      return true;
    }
    if (this.stage === 'options') return this.option();
    return this.stage === 'requests' && this.request();
  }

  private option(): boolean {
    const head = this.peek(OPTION_BYTES);
    if (head === null) return false;
    const option = head.readUInt32BE(8);
    const length = head.readUInt32BE(12);
    if (head.readBigUInt64BE(0) !== OPTION_MAGIC || length > REQUEST_BYTES_MAX) return this.end();
    const whole = this.peek(OPTION_BYTES + length);
    if (whole === null) return false;
    const data = Buffer.from(whole.subarray(OPTION_BYTES));
    this.drop(OPTION_BYTES + length);
    if (option === OPTION_ABORT) return this.end();
    if (option !== OPTION_GO && option !== OPTION_INFO) {
      this.replyOption(option, REPLY_UNSUPPORTED, Buffer.alloc(0));
      return true;
    }
    const drive = this.drives.get(data.toString('utf8', 4, 4 + data.readUInt32BE(0)));
    if (drive === undefined) {
      this.replyOption(option, REPLY_UNKNOWN, Buffer.alloc(0));
      return true;
    }
    const info = Buffer.alloc(12);
    info.writeBigUInt64BE(BigInt(drive.disk.sizeBytes), 2);
    info.writeUInt16BE(TRANSMISSION_FLAGS, 10);
    this.replyOption(option, REPLY_INFO, info);
    this.replyOption(option, REPLY_ACK, Buffer.alloc(0));
    if (option === OPTION_GO) {
      this.drive = drive;
      this.stage = 'requests';
    }
    return true;
  }

  private replyOption(option: number, type: number, data: Buffer): void {
    const head = Buffer.alloc(20);
    head.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
    head.writeUInt32BE(option, 8);
    head.writeUInt32BE(type, 12);
    head.writeUInt32BE(data.length, 16);
    this.socket.write(Buffer.concat([head, data]));
  }

  private end(): boolean {
    this.stage = 'over';
    this.socket.destroy();
    return false;
  }

  private request(): boolean {
    const head = this.peek(REQUEST_BYTES);
    const { drive } = this;
    if (head === null || drive === null) return false;
    if (head.readUInt32BE(0) !== REQUEST_MAGIC) return this.end();
    const flags = head.readUInt16BE(4);
    const command = head.readUInt16BE(6);
    const cookie = Buffer.from(head.subarray(8, 16));
    const offsetBytes = Number(head.readBigUInt64BE(16));
    const lengthBytes = head.readUInt32BE(24);
    if (command === COMMAND_DISCONNECT || lengthBytes > REQUEST_BYTES_MAX) return this.end();
    if (command === COMMAND_WRITE && this.peek(REQUEST_BYTES + lengthBytes) === null) return false;
    this.drop(REQUEST_BYTES);
    if (command === COMMAND_READ) this.read(drive, cookie, offsetBytes, lengthBytes);
    else if (command === COMMAND_WRITE) {
      const bytes = Uint8Array.from(this.peek(lengthBytes) ?? []);
      this.drop(lengthBytes);
      this.write(drive, cookie, offsetBytes, bytes, (flags & COMMAND_FUA) !== 0);
    } else if (command === COMMAND_FLUSH) this.flush(drive, cookie);
    else this.reply(cookie, ERRNO_EINVAL);
    return true;
  }

  private reply(cookie: Buffer, errno: number, data?: Uint8Array): void {
    const head = Buffer.alloc(16);
    head.writeUInt32BE(REPLY_MAGIC, 0);
    head.writeUInt32BE(errno, 4);
    cookie.copy(head, 8);
    this.socket.write(data === undefined ? head : Buffer.concat([head, data]));
  }

  private later(action: () => void): void {
    setTimeout(
      () => {
        if (!this.isClosed()) action();
      },
      this.prng.between(0, DELAY_MS_MAX),
    );
  }

  private read(drive: NbdDrive, cookie: Buffer, offsetBytes: number, lengthBytes: number): void {
    const bytes = new Uint8Array(lengthBytes);
    if (offsetBytes + lengthBytes > drive.disk.sizeBytes) {
      this.reply(cookie, ERRNO_EINVAL);
      return;
    }
    drive.disk.read(offsetBytes, bytes);
    this.reply(cookie, 0, bytes);
  }

  private write(
    drive: NbdDrive,
    cookie: Buffer,
    offsetBytes: number,
    bytes: Uint8Array,
    throughCache: boolean,
  ): void {
    const { disk } = drive;
    if (offsetBytes + bytes.length > disk.sizeBytes) {
      this.reply(cookie, ERRNO_EINVAL);
      return;
    }
    const write = disk.beginWrite(offsetBytes, bytes);
    this.onChange(drive, 'write');
    this.later(() => {
      disk.endWrite(write);
      if (throughCache) disk.endFlush([write]);
      this.reply(cookie, 0);
    });
  }

  private flush(drive: NbdDrive, cookie: Buffer): void {
    const { disk } = drive;
    const covered = drive.isLying === true ? [] : disk.beginFlush();
    this.later(() => {
      disk.endFlush(covered);
      this.reply(cookie, 0);
      this.onChange(drive, 'flush');
    });
  }
}
