// What the machine already has: Node, a C++20 compiler, build tools, libraries.
//
// Invariants
//   1. A probe looks for the thing itself (a program that answers, a header that a compiler finds),
//      not for a package: a user with clang, or with CMake from elsewhere, is not told to install.
//   2. Each probe names the Debian package that brings the thing. The names are the same on
//      Debian 12 and Ubuntu 24.04.
//   3. A probe changes nothing.
//
// This file never installs and never asks; tools/setup.mjs does.
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** The lowest Node that runs the tests: ESM from CommonJS and the node:test features used here. */
export const NODE_MINIMUM = [20, 19, 0];
/** First gcc and clang whose C++20 is complete enough for the native core. */
const GCC_MINIMUM_MAJOR = 11;
const CLANG_MINIMUM_MAJOR = 14;
/** First CMake that writes ctest results as JUnit. */
const CMAKE_MINIMUM = [3, 21, 0];
/** Longest time that one probe may take. */
const PROBE_TIMEOUT_MS = 20_000;

/** Runs a program and returns its combined output, or null when it is missing or failed. */
function probe(program, args, input) {
  const result = spawnSync(program, args, {
    encoding: 'utf8',
    timeout: PROBE_TIMEOUT_MS,
    input: input ?? '',
  });
  if (result.error || result.status !== 0) return null;
  return `${result.stdout}${result.stderr}`;
}

/** Whether a program of this name is on PATH. */
export function onPath(program) {
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    if (directory === '') continue;
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      // Not in this directory; the next one may have it.
    }
  }
  return false;
}

/** First a.b[.c] in a text, as three numbers, or null. */
export function parseVersion(text) {
  const match = /(\d+)\.(\d+)(?:\.(\d+))?/.exec(text ?? '');
  return match === null ? null : [Number(match[1]), Number(match[2]), Number(match[3] ?? 0)];
}

/** True when version `have` is at least `need`. */
export function atLeast(have, need) {
  for (let index = 0; index < need.length; index++) {
    if ((have[index] ?? 0) !== need[index]) return (have[index] ?? 0) > need[index];
  }
  return true;
}

function compilerCommand() {
  return process.env.CXX ?? 'c++';
}

function probeCompiler() {
  const compiler = compilerCommand();
  const banner = probe(compiler, ['--version']);
  if (banner === null) return 'no C++ compiler answers as `' + compiler + '`';
  const clang = /clang/i.test(banner);
  const major = Number((probe(compiler, ['-dumpversion']) ?? '0').trim().split('.')[0]);
  const minimum = clang ? CLANG_MINIMUM_MAJOR : GCC_MINIMUM_MAJOR;
  if (major < minimum)
    return `${compiler} is version ${major}; ${clang ? 'clang' : 'gcc'} ${minimum} or newer is needed`;
  const source = '#include <span>\n#include <atomic>\nint main() { return 0; }\n';
  if (probe(compiler, ['-std=c++20', '-x', 'c++', '-fsyntax-only', '-'], source) === null) {
    return `${compiler} does not compile C++20 with its standard library`;
  }
  return null;
}

function probeMake() {
  return onPath('make') ? null : '`make` is missing';
}

function probeCmake() {
  const version = parseVersion(probe('cmake', ['--version']));
  if (version === null) return '`cmake` is missing';
  if (!atLeast(version, CMAKE_MINIMUM))
    return `cmake is ${version.join('.')}; ${CMAKE_MINIMUM.join('.')} is needed`;
  return null;
}

const header = (name) => () => {
  const source = `#include <${name}>\nint main() { return 0; }\n`;
  return probe(compilerCommand(), ['-x', 'c++', '-fsyntax-only', '-'], source) === null
    ? `<${name}> is not found`
    : null;
};

function probeVenv() {
  return probe('python3', ['-c', 'import ensurepip, venv']) === null
    ? 'python3 cannot make a virtual environment'
    : null;
}

const program = (name) => () => (onPath(name) ? null : `\`${name}\` is missing`);

/**
 * Everything looked for. `uses` says for which command it matters; an optional one that stays
 * missing costs a comparison or some tests, which then say that they were skipped.
 */
export const REQUIREMENTS = [
  {
    debianPackage: 'build-essential',
    required: true,
    uses: 'all',
    why: 'C++20 compiler',
    probe: probeCompiler,
  },
  { debianPackage: 'build-essential', required: true, uses: 'all', why: 'make', probe: probeMake },
  { debianPackage: 'cmake', required: true, uses: 'all', why: 'native build', probe: probeCmake },
  { debianPackage: 'ninja-build', required: true, uses: 'all', why: 'native build', probe: program('ninja') },
  {
    debianPackage: 'pkg-config',
    required: true,
    uses: 'all',
    why: 'finds libraries',
    probe: program('pkg-config'),
  },
  {
    debianPackage: 'liburing-dev',
    required: true,
    uses: 'all',
    why: 'io_uring',
    probe: header('liburing.h'),
  },
  { debianPackage: 'liblz4-dev', required: true, uses: 'all', why: 'LZ4 blocks', probe: header('lz4.h') },
  {
    debianPackage: 'libssl-dev',
    required: true,
    uses: 'all',
    why: 'AES-256-GCM of encrypted stores',
    probe: header('openssl/evp.h'),
  },
  { debianPackage: 'libzstd-dev', required: true, uses: 'all', why: 'zstd frames', probe: header('zstd.h') },
  {
    debianPackage: 'fio',
    required: false,
    uses: 'all',
    why: 'what the drives can do',
    probe: program('fio'),
  },
  {
    debianPackage: 'python3',
    required: false,
    uses: 'test',
    why: 'reference models',
    probe: program('python3'),
  },
  {
    debianPackage: 'softhsm2',
    required: false,
    uses: 'test',
    why: 'keys in a PKCS#11 token',
    probe: program('softhsm2-util'),
  },
  {
    debianPackage: 'swtpm',
    required: false,
    uses: 'test',
    why: 'keys in a TPM',
    probe: program('swtpm'),
  },
  {
    debianPackage: 'tpm2-tools',
    required: false,
    uses: 'test',
    why: 'keys in a TPM',
    probe: program('tpm2_unseal'),
  },
  {
    debianPackage: 'fdisk',
    required: false,
    uses: 'test',
    why: 'partitions on test devices',
    // Only root can use it, and only a root's PATH has /sbin.
    probe: () => (process.getuid?.() === 0 ? program('sfdisk')() : null),
  },
  {
    debianPackage: 'python3-venv',
    required: false,
    uses: 'test',
    why: 'safetensors in Python',
    probe: probeVenv,
  },
];

/** Requirements of `purpose` that are not met, each with the reason. */
export function missingRequirements(purpose) {
  const missing = [];
  for (const requirement of REQUIREMENTS) {
    if (requirement.uses !== 'all' && requirement.uses !== purpose) continue;
    const reason = requirement.probe();
    if (reason !== null) missing.push({ ...requirement, reason });
  }
  return missing;
}

/** A sentence when this Node or this system cannot run Ingot, else null. */
export function unsupportedSystem() {
  if (process.platform !== 'linux') return `Ingot runs on Linux; this is ${process.platform}.`;
  const have = parseVersion(process.versions.node);
  if (!atLeast(have, NODE_MINIMUM)) {
    return `Node ${process.versions.node} is too old; ${NODE_MINIMUM.join('.')} or newer is needed.`;
  }
  return null;
}
