// What `ingot doctor` says of GPUs: what reads into each take, from each member, and what a direct path would need.
//
// Invariants
//   1. Nothing is measured and nothing is written; cuFile is asked only where there is a GPU.
//   2. Checks never throw for what they look at: a failure is a finding.
//
// The list of what matters follows NVIDIA's gdscheck.

import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { release } from 'node:os';
import { NativeIo } from '../../engine/index.js';
import { type DoctorLine, line } from './doctor_checks.js';
import { formatBytes } from './progress.js';

/** What reads into GPU memory will take here, GPU by GPU, and why nothing better. */
export function checkGpu(): DoctorLine[] {
  const io = new NativeIo();
  const { gpus, reason, kernels } = io.gpu.list();
  void io.close();
  if (gpus.length === 0) {
    const remedy = 'none needed for host memory; a GPU needs the NVIDIA driver';
    return [line('CUDA', 'note', `no GPU can be used: ${reason}`, remedy)];
  }
  const lines = gpus.map(({ id, name, pci, capability, totalBytes, numaNode }) => {
    const node = numaNode < 0 ? 'NUMA node unknown' : `NUMA node ${numaNode}`;
    const shape = `${name}, ${formatBytes(totalBytes)}, compute capability ${(capability / 10).toFixed(1)}`;
    const why = 'cuFile is taken only when it is demanded (--path), as direct mode was never measured';
    return line(
      `cuda:${id}`,
      'ok',
      `takes pinned from every member: ${why}; ${shape}, at ${pci}, ${node}`,
      null,
      'pinned',
    );
  });
  const built =
    kernels === ''
      ? line(
          'CUDA kernels',
          'note',
          'this build has none: coded chunks are decoded on the CPU on their way to a GPU',
          'build where nvcc is installed (CUDA 13)',
        )
      : line('CUDA kernels', 'ok', `built in for ${kernels}: coded chunks are decoded on the GPU`);
  return [...lines, built, checkDirect()];
}

/** What a direct path needs of the machine, as far as it can be seen. */
function checkDirect(): DoctorLine {
  const hasModule = existsSync('/proc/driver/nvidia-fs/version');
  const found = [
    hasModule ? 'nvidia-fs is loaded' : 'nvidia-fs is not loaded',
    `P2PDMA ${peerToPeer()}`,
    ioMmus() === 0 ? 'no IOMMU' : `${ioMmus()} IOMMUs (direct transfers may be sent around by them)`,
    existsSync('/run/udev/data')
      ? 'udev has its data'
      : "udev's data (/run/udev) is missing: cuFile refuses block devices that it cannot look up",
  ].join('; ');
  return hasModule
    ? line('GPUDirect Storage', 'ok', found)
    : line('GPUDirect Storage', 'note', found, 'none needed: GPUs take pinned');
}

function peerToPeer(): string {
  const path = `/boot/config-${release()}`;
  if (!existsSync(path)) return 'unknown (no kernel configuration in /boot)';
  return /^CONFIG_PCI_P2PDMA=y$/m.test(readFileSync(path, 'utf8')) ? 'in the kernel' : 'not in the kernel';
}

function ioMmus(): number {
  const path = '/sys/class/iommu';
  return existsSync(path) ? readdirSync(path).length : 0;
}

interface OpenMember {
  readonly slot: number;
  readonly numaNode: number | null;
}

/** What each GPU takes from an open member, and what cuFile would do with it. */
export function checkGpuPaths(io: NativeIo, member: OpenMember, path: string): DoctorLine[] {
  const { gpus } = io.gpu.list();
  if (gpus.length === 0) return [];
  const cufile = io.gpu.cufile(member.slot);
  const offered =
    cufile.path === null
      ? `cuFile does not take it (${cufile.reason})`
      : `${cufile.path} on demand (${cufile.reason})`;
  return gpus.map(({ id, numaNode }) => {
    const isKnown = numaNode >= 0 && member.numaNode !== null;
    const near = !isKnown
      ? 'topology unknown'
      : numaNode === member.numaNode
        ? 'same NUMA node'
        : 'another NUMA node';
    return line(`${path} to cuda:${id}`, 'ok', `takes pinned; ${offered}; ${near}`, null, 'pinned');
  });
}
