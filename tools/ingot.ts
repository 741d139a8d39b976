#!/usr/bin/env node
// The `ingot` command: hands the command line to the program and ends with its exit code.
//
// Invariants
//   1. The process ends when the command has ended and its output was taken: nothing that is left open keeps it.
//
// All behaviour is in tools/cli/ and tools/commands/.

import { readFileSync } from 'node:fs';
import { runProgram } from './cli/program.js';
import { COMMANDS } from './commands/index.js';

// dist/tools/ingot.js: package.json is two directories up, in a checkout and in an installed package.
const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

process.exit(await runProgram(COMMANDS, process.argv.slice(2), manifest.version));
