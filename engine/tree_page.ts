// Interim adapter while format/page.ts is being written.
import { StoreError, assert } from '../format/errors.js';
export interface PagePointer { readonly sum: bigint; readonly birth: number; readonly storedBytes: number; readonly level: number; readonly kind: number; readonly copies: readonly { readonly member: number; readonly sector: number }[] }
export interface LargeValue { readonly rawBytes: number; readonly pieceCount: number; readonly pointer: PagePointer }
export interface ValuePieceEntry { readonly pointer: PagePointer; readonly storedBytes: number; readonly rawBytes: number; readonly codec: number }
export const SECTOR_BYTES = 4096, PAGE_HEADER_BYTES = 64, LEAF_SLOT_BYTES = 12, BRANCH_SLOT_BYTES = 8, POINTER_BYTES = 80;
export const KEY_BYTES_MAX = 1024, INLINE_VALUE_BYTES_MAX = 2048, LARGE_VALUE_BYTES = 112, VALUE_PIECE_BYTES = 245760;
export const VALUE_BYTES_MAX = 512 * 1024 * 1024, VALUE_PIECE_ENTRY_BYTES = 96;
export const PAGE_KIND_LEAF = 1, PAGE_KIND_BRANCH = 2, PAGE_KIND_VALUE_INDEX = 3, PAGE_KIND_PIECE = 4;
export interface PageIdentity { readonly treeId: number; readonly birth: number; readonly storeUuid: Uint8Array; readonly storedBytes: number }
export function treeName(treeId: number): string { return ['runs', 'versions', 'extents', 'free space', 'members', 'keys'][treeId] ?? `number ${treeId}`; }
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const n = Math.min(a.length, b.length);
  for (let i = 0; i < n; i += 1) { const d = (a[i] as number) - (b[i] as number); if (d !== 0) return d; }
  return a.length - b.length;
}
class PageBase {
  readonly view: DataView;
  readonly itemCount: number; readonly usedBytes: number; readonly kind: number; readonly level: number;
  constructor(readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.kind = bytes[4] as number; this.level = bytes[6] as number;
    this.itemCount = this.view.getUint32(16, true); this.usedBytes = this.view.getUint32(20, true);
  }
}
function cmp(bytes: Uint8Array, offset: number, length: number, key: Uint8Array): number {
  const keyLength = key.length; const n = length < keyLength ? length : keyLength;
  for (let i = 0; i < n; i += 1) { const d = (bytes[offset + i] as number) - (key[i] as number); if (d !== 0) return d; }
  return length - keyLength;
}
export class LeafPage extends PageBase {
  keyBytes(i: number): number { return this.view.getUint16(64 + 12 * i + 8, true); }
  valueBytes(i: number): number { return this.view.getUint32(64 + 12 * i + 4, true); }
  isLarge(i: number): boolean { return this.bytes[64 + 12 * i + 10] === 1; }
  key(i: number): Uint8Array { const o = this.view.getUint32(64 + 12 * i, true); return this.bytes.subarray(o, o + this.keyBytes(i)); }
  value(i: number): Uint8Array { const o = this.view.getUint32(64 + 12 * i, true) + this.keyBytes(i); return this.bytes.subarray(o, o + this.valueBytes(i)); }
  compareKey(i: number, key: Uint8Array): number { const s = 64 + 12 * i; return cmp(this.bytes, this.view.getUint32(s, true), this.view.getUint16(s + 8, true), key); }
  find(key: Uint8Array): number {
    let low = 0, high = this.itemCount; const { view, bytes } = this;
    while (low < high) {
      const m = (low + high) >>> 1; const s = 64 + 12 * m;
      const c = cmp(bytes, view.getUint32(s, true), view.getUint16(s + 8, true), key);
      if (c === 0) return m; if (c < 0) low = m + 1; else high = m;
    }
    return -1 - low;
  }
}
export class BranchPage extends PageBase {
  keyBytes(i: number): number { return this.view.getUint16(64 + 8 * i + 4, true); }
  key(i: number): Uint8Array { const o = this.view.getUint32(64 + 8 * i, true); return this.bytes.subarray(o, o + this.keyBytes(i)); }
  pointer(i: number): PagePointer { return getPointer(this.view, this.view.getUint32(64 + 8 * i, true) + this.keyBytes(i)); }
  compareKey(i: number, key: Uint8Array): number { const s = 64 + 8 * i; return cmp(this.bytes, this.view.getUint32(s, true), this.view.getUint16(s + 4, true), key); }
  childIndex(key: Uint8Array): number {
    let low = 1, high = this.itemCount; const { view, bytes } = this;
    while (low < high) {
      const m = (low + high) >>> 1; const s = 64 + 8 * m;
      if (cmp(bytes, view.getUint32(s, true), view.getUint16(s + 4, true), key) <= 0) low = m + 1; else high = m;
    }
    return low - 1;
  }
  childIndexBelow(bound: Uint8Array | null): number {
    if (bound === null) return this.itemCount - 1;
    let low = 1, high = this.itemCount;
    while (low < high) { const m = (low + high) >>> 1; if (this.compareKey(m, bound) < 0) low = m + 1; else high = m; }
    return low - 1;
  }
}
export class ValueIndexPage extends PageBase {
  get entries(): ValuePieceEntry[] {
    const out: ValuePieceEntry[] = [];
    for (let i = 0; i < this.itemCount; i += 1) { const o = 64 + 96 * i; out.push({ pointer: getPointer(this.view, o), storedBytes: this.view.getUint32(o + 80, true), rawBytes: this.view.getUint32(o + 84, true), codec: this.bytes[o + 88] as number }); }
    return out;
  }
}
export class PiecePage extends PageBase {}
export type CatalogPage = LeafPage | BranchPage | ValueIndexPage | PiecePage;
export function isLeafPage(p: CatalogPage): p is LeafPage { return p.kind === 1; }
export function isBranchPage(p: CatalogPage): p is BranchPage { return p.kind === 2; }
export function isValueIndexPage(p: CatalogPage): p is ValueIndexPage { return p.kind === 3; }
export function isPiecePage(p: CatalogPage): p is PiecePage { return p.kind === 4; }
function getPointer(v: DataView, o: number): PagePointer {
  const copies = [];
  for (let i = 0; i < v.getUint8(o + 20); i += 1) { const c = o + 24 + 8 * i; copies.push({ member: v.getUint16(c + 6, true), sector: v.getUint32(c, true) + v.getUint16(c + 4, true) * 2 ** 32 }); }
  return { sum: v.getBigUint64(o, true), birth: Number(v.getBigUint64(o + 8, true)), storedBytes: v.getUint32(o + 16, true), level: v.getUint8(o + 21), kind: v.getUint8(o + 22), copies };
}
function putPointer(v: DataView, o: number, p: PagePointer): void {
  v.setBigUint64(o, p.sum, true); v.setBigUint64(o + 8, BigInt(p.birth), true); v.setUint32(o + 16, p.storedBytes, true);
  v.setUint8(o + 20, p.copies.length); v.setUint8(o + 21, p.level); v.setUint8(o + 22, p.kind); v.setUint8(o + 23, 1);
  for (let i = 0; i < 3; i += 1) { const c = o + 24 + 8 * i; const k = p.copies[i]; v.setUint32(c, k ? k.sector % 2 ** 32 : 0xffffffff, true); v.setUint16(c + 4, k ? Math.floor(k.sector / 2 ** 32) : 0xffff, true); v.setUint16(c + 6, k ? k.member : 0xffff, true); }
}
export function decodeCatalogPage(bytes: Uint8Array, pointer: PagePointer, treeId: number, storeUuid: Uint8Array): CatalogPage {
  const p = pointer.kind === 1 ? new LeafPage(bytes) : pointer.kind === 2 ? new BranchPage(bytes) : pointer.kind === 3 ? new ValueIndexPage(bytes) : new PiecePage(bytes);
  if (p.kind !== pointer.kind || p.level !== pointer.level || bytes[5] !== treeId) throw new StoreError('E_FORMAT', 'page header');
  assert(storeUuid.length === 16, 'uuid');
  return p;
}
function start(id: PageIdentity, kind: number, level: number, itemCount: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(id.storedBytes); const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x31475049, true); bytes[4] = kind; bytes[5] = id.treeId; bytes[6] = level; view.setBigUint64(8, BigInt(id.birth), true); view.setUint32(16, itemCount, true); bytes.set(id.storeUuid, 24);
  return { bytes, view };
}
export function encodeLeafPage(id: PageIdentity, count: number, items: { key(i: number): Uint8Array; value(i: number): Uint8Array; isLarge(i: number): boolean }): Uint8Array {
  const { bytes, view } = start(id, 1, 0, count); let o = 64 + 12 * count;
  for (let i = 0; i < count; i += 1) { const k = items.key(i), v = items.value(i), s = 64 + 12 * i; view.setUint32(s, o, true); view.setUint32(s + 4, v.length, true); view.setUint16(s + 8, k.length, true); bytes[s + 10] = items.isLarge(i) ? 1 : 0; bytes.set(k, o); bytes.set(v, o + k.length); o += k.length + v.length; }
  view.setUint32(20, o, true); return bytes;
}
export function encodeBranchPage(id: PageIdentity, level: number, count: number, items: { key(i: number): Uint8Array; pointer(i: number): PagePointer }): Uint8Array {
  const { bytes, view } = start(id, 2, level, count); let o = 64 + 8 * count;
  for (let i = 0; i < count; i += 1) { const k = items.key(i), s = 64 + 8 * i; view.setUint32(s, o, true); view.setUint16(s + 4, k.length, true); bytes.set(k, o); putPointer(view, o + k.length, items.pointer(i)); o += k.length + 80; }
  view.setUint32(20, o, true); return bytes;
}
export function encodeValueIndexPage(id: PageIdentity, entries: readonly ValuePieceEntry[]): Uint8Array {
  const { bytes, view } = start(id, 3, 0, entries.length);
  entries.forEach((e, i) => { const o = 64 + 96 * i; putPointer(view, o, e.pointer); view.setUint32(o + 80, e.storedBytes, true); view.setUint32(o + 84, e.rawBytes, true); bytes[o + 88] = e.codec; });
  view.setUint32(20, 64 + 96 * entries.length, true); return bytes;
}
export function encodePiecePage(id: PageIdentity, stored: Uint8Array): Uint8Array {
  const { bytes, view } = start(id, 4, 0, 0); bytes.set(stored, 64); view.setUint32(20, 64 + stored.length, true); return bytes;
}
export function encodeLargeValueDescriptor(d: LargeValue): Uint8Array {
  const b = new Uint8Array(112); const v = new DataView(b.buffer); v.setBigUint64(0, BigInt(d.rawBytes), true); v.setUint32(8, d.pieceCount, true); putPointer(v, 32, d.pointer); return b;
}
export function decodeLargeValueDescriptor(b: Uint8Array): LargeValue {
  const v = new DataView(b.buffer, b.byteOffset, b.byteLength); return { rawBytes: Number(v.getBigUint64(0, true)), pieceCount: v.getUint32(8, true), pointer: getPointer(v, 32) };
}
