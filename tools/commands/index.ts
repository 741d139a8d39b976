// All commands, in the order in which `ingot --help` shows them.

import type { CommandModule } from '../cli/program.js';
import { register as add } from './add.js';
import { register as bench } from './bench.js';
import { register as create } from './create.js';
import { register as diff } from './diff.js';
import { register as doctor } from './doctor.js';
import { register as dump } from './dump.js';
import { register as exportCommand } from './export.js';
import { register as fsck } from './fsck.js';
import { register as get } from './get.js';
import { register as importCommand } from './import.js';
import { register as info } from './info.js';
import { register as key } from './key.js';
import { register as load } from './load.js';
import { register as ls } from './ls.js';
import { register as online } from './online.js';
import { register as prune } from './prune.js';
import { register as put } from './put.js';
import { register as remove } from './remove.js';
import { register as replace } from './replace.js';
import { register as rm } from './rm.js';
import { register as scrub } from './scrub.js';
import { register as shred } from './shred.js';
import { register as stat } from './stat.js';
import { register as status } from './status.js';
import { register as tag } from './tag.js';
import { register as tree } from './tree.js';
import { register as verify } from './verify.js';

export const COMMANDS: readonly CommandModule[] = [
  create,
  importCommand,
  exportCommand,
  ls,
  tree,
  info,
  status,
  diff,
  stat,
  get,
  load,
  put,
  rm,
  shred,
  tag,
  prune,
  verify,
  scrub,
  add,
  remove,
  replace,
  online,
  fsck,
  key,
  dump,
  doctor,
  bench,
];
