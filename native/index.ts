// Finds and loads the native addon, and says plainly what was tried when it cannot.
//
// Order: INGOT_NATIVE_PATH, then build/Release/ingot.node under the package root. This file runs from
// dist/native/, so the root is two directories up, in a checkout as in an installed package.
//
// Invariants
//   1. The addon is loaded once per process image of this module.
//   2. A failure is a StoreError E_NATIVE that lists each path with its reason and the command to run.

import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { StoreError } from '../format/errors.js';
import type { NativeBinding } from './binding.js';

export type * from './binding.js';

/** Must equal INGOT_ABI_VERSION of the addon. */
const ABI_VERSION = 1;

let loaded: NativeBinding | undefined;

export function loadNative(): NativeBinding {
  loaded ??= load();
  return loaded;
}

/** The paths that are tried, in order. */
export function nativeCandidates(): readonly string[] {
  const override = process.env['INGOT_NATIVE_PATH'];
  if (override !== undefined && override !== '') return [override];
  const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
  return [join(root, 'build', 'Release', 'ingot.node')];
}

function load(): NativeBinding {
  const require = createRequire(import.meta.url);
  const tried: string[] = [];
  let cause: unknown;
  for (const path of nativeCandidates()) {
    try {
      const binding = require(path) as NativeBinding;
      if (binding.abiVersion === ABI_VERSION) return binding;
      tried.push(`${path}: has interface ${binding.abiVersion}, this package needs ${ABI_VERSION}`);
    } catch (error) {
      cause = error;
      tried.push(`${path}: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`);
    }
  }
  throw new StoreError('E_NATIVE', `The native core could not be loaded. Tried ${tried.join('; ')}.`, {
    cause,
    safe: 'No store was opened and nothing was written.',
    next: 'Run "npx cmake-js compile" in the package directory (needs a C++20 compiler, cmake and liburing-dev).',
  });
}
