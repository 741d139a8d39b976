// What `info` and `stats` say of an open store.
//
// Invariants
//   1. Numbers come from the newest root known here and from the Io port's own counters; nothing is estimated.
//   2. Absent members are listed with what the root says of them.
//
// This file never does I/O.

import { FORMAT_MAJOR, FORMAT_MINOR } from '../format/index.js';
import type { MemberState } from './contract.js';
import { oldKeyHolders } from './keys/erasure.js';
import type { StoreContext } from './store_context.js';
import type { MemberInfo, ResilverStats, StoreInfo, StoreStats } from './types.js';

const SECTOR_BYTES = 4096;

/** 32 lower-case hexadecimal digits. */
export function uuidText(uuid: Uint8Array): string {
  return Array.from(uuid, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function memberInfo(context: StoreContext, member: MemberState): MemberInfo {
  const errors = context.io.stats().perSlot.find((each) => each.slot === member.device?.slot);
  const name = member.path.slice(member.path.lastIndexOf('/') + 1);
  return {
    name: name === '' ? `member ${member.index}` : name,
    path: member.path,
    index: member.index,
    uuid: uuidText(member.uuid),
    kind: member.device?.kind ?? 'missing',
    ioPath: member.device?.ioPath ?? null,
    numaNode: member.device?.numaNode ?? null,
    failureDomain: member.failureDomain,
    syncedSequence: member.syncedSequence,
    state: member.state,
    isLeaving: member.isLeaving,
    capacityBytes: member.capacitySectors * SECTOR_BYTES,
    allocatedBytes: member.allocatedSectors * SECTOR_BYTES,
    errors: {
      read: errors?.readErrors ?? 0,
      write: errors?.writeErrors ?? 0,
      checksum: errors?.checksumErrors ?? 0,
    },
  };
}

export function storeInfo(context: StoreContext): StoreInfo {
  const { catalog } = context;
  const { superblock } = catalog;
  const attending = catalog.members.filter((member) => member.state !== 'detached');
  const members = catalog.members.map((member) => memberInfo(context, member));
  const online = catalog.members.filter((member) => member.takesWrites || member.state === 'online');
  const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0);
  const degraded = attending.some((member) => member.state !== 'online' && member.state !== 'evacuating');
  return {
    uuid: uuidText(catalog.storeUuid),
    formatVersion: `${FORMAT_MAJOR}.${FORMAT_MINOR}`,
    state: catalog.poisoned !== null ? 'failed' : degraded ? 'degraded' : 'online',
    writable: catalog.writable,
    sequence: superblock.sequence,
    versionCount: superblock.versionCount,
    members,
    capacityBytes: sum(
      members.filter(({ state }) => state !== 'detached').map((member) => member.capacityBytes),
    ),
    freeBytes: sum(online.map((member) => catalog.freeSectors(member.index))) * SECTOR_BYTES,
    storedBytes: sum(members.map((member) => member.allocatedBytes)),
    chunkBytes: superblock.defaultChunkBytes,
    segmentBytes: superblock.defaultSegmentBytes,
    redundancy: superblock.defaultRedundancy,
    encryption: catalog.keys.state,
    oldKeysOn: oldKeyHolders(catalog).map(({ path }) => path),
    openReport: catalog.openReport,
  };
}

export function storeStats(context: StoreContext, resilver: ResilverStats | null): StoreStats {
  const io = context.io.stats();
  return {
    readBytes: io.readBytes,
    writtenBytes: io.writtenBytes,
    byPath: io.byPath,
    backend: context.io.backend,
    repairs: context.healer.stats().healed,
    gpu: { ...context.gpus.counters },
    healing: context.healer.stats(),
    resilver,
    copiesPassedOver: context.counters.copiesPassedOver,
    readRetries: context.counters.readRetries,
    lateReads: context.hung.lateReads,
    flushes: io.flushes,
    commits: context.counters.commits,
    openTransactions: context.counters.openTransactions,
    perMember: context.catalog.members.map((member) => memberInfo(context, member)),
  };
}
