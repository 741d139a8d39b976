// Generates format/layout.gen.ts and native/src/layout.gen.h from spec/layout.json, the single
// source of every fixed on-disk structure.
//
// Invariants
//   1. Fields of a structure are adjacent, in order, and fill it exactly; otherwise nothing is written.
//   2. The same input gives the same bytes (a test compares them with what is committed).
//
// Usage: node tools/gen_layout.mjs [--check]    (--check: exit 1 on drift, write nothing)

import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const SCALAR_BYTES = { u8: 1, u16: 2, u32: 4, u64: 8, uuid: 16, bytes: 1, zero: 1 };

function fieldBytes(layout, field) {
  const unit = SCALAR_BYTES[field.type] ?? layout.structures[field.type]?.bytes;
  if (unit === undefined) throw new Error(`unknown type ${field.type}`);
  return unit * (field.count ?? 1);
}

function checkLayout(layout) {
  for (const [name, structure] of Object.entries(layout.structures)) {
    let end = 0;
    for (const field of structure.fields) {
      if (field.offset !== end) throw new Error(`${name}.${field.name} is at ${field.offset}, not ${end}`);
      end += fieldBytes(layout, field);
    }
    if (end !== structure.bytes) throw new Error(`${name} has ${end} bytes, not ${structure.bytes}`);
  }
}

const constantCase = (name) => name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase();

export function generateTypeScript(layout) {
  const lines = [
    '// Generated from spec/layout.json by tools/gen_layout.mjs. Do not edit.',
    '//',
    '// NAME_BYTES is the size of a structure; NAME_FIELD is the offset of a field in it, in bytes.',
    '',
    `export const FORMAT_MAJOR = ${layout.formatMajor};`,
    `export const FORMAT_MINOR = ${layout.formatMinor};`,
  ];
  for (const [name, structure] of Object.entries(layout.structures)) {
    const prefix = constantCase(name);
    lines.push('', `/** ${structure.doc} */`, `export const ${prefix}_BYTES = ${structure.bytes};`);
    for (const field of structure.fields) {
      if (field.doc !== undefined) lines.push(`/** ${field.doc} */`);
      lines.push(`export const ${prefix}_${constantCase(field.name)} = ${field.offset};`);
    }
  }
  const ranges = [];
  for (const [name, structure] of Object.entries(layout.structures)) {
    const zero = structure.fields.filter((field) => field.type === 'zero');
    const pairs = zero.map((field) => `[${field.offset}, ${field.offset + (field.count ?? 1)}]`);
    ranges.push(
      `export const ${constantCase(name)}_ZERO: readonly (readonly [number, number])[] = [${pairs.join(', ')}];`,
    );
  }
  lines.push('', '// Byte ranges [from, to) that are zero in format 1.0.', ...ranges, '');
  return lines.join('\n');
}

const CPP_TYPE = { u8: 'std::uint8_t', u16: 'std::uint16_t', u32: 'std::uint32_t', u64: 'std::uint64_t' };

function cppField(field) {
  const type = CPP_TYPE[field.type];
  const count = field.count ?? 1;
  if (type !== undefined) return count === 1 ? `${type} ${field.name};` : `${type} ${field.name}[${count}];`;
  if (field.type === 'uuid') return `std::uint8_t ${field.name}[16];`;
  if (field.type === 'bytes' || field.type === 'zero') return `std::uint8_t ${field.name}[${count}];`;
  return count === 1 ? `${field.type} ${field.name};` : `${field.type} ${field.name}[${count}];`;
}

export function generateCpp(layout) {
  const lines = [
    '// Generated from spec/layout.json by tools/gen_layout.mjs. Do not edit.',
    '//',
    '// On-disk structures, little-endian, packed. Only for little-endian machines.',
    '#pragma once',
    '',
    '#include <cstddef>',
    '#include <cstdint>',
    '',
    'static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the structures are read in place");',
    '',
    'namespace ingot::layout {',
    '',
    `inline constexpr unsigned kFormatMajor = ${layout.formatMajor};`,
    `inline constexpr unsigned kFormatMinor = ${layout.formatMinor};`,
    '',
    '#pragma pack(push, 1)',
  ];
  for (const [name, structure] of Object.entries(layout.structures)) {
    lines.push('', `/// ${structure.doc}`, `struct ${name} {`);
    for (const field of structure.fields) {
      lines.push(`  ${cppField(field)}${field.doc === undefined ? '' : `  ///< ${field.doc}`}`);
    }
    lines.push('};', `static_assert(sizeof(${name}) == ${structure.bytes});`);
    for (const field of structure.fields) {
      lines.push(`static_assert(offsetof(${name}, ${field.name}) == ${field.offset});`);
    }
  }
  lines.push('', '#pragma pack(pop)', '', '}  // namespace ingot::layout', '');
  return lines.join('\n');
}

/** Path of each generated file, relative to the checkout, and its text. */
export function generateAll(layoutText) {
  const layout = JSON.parse(layoutText);
  checkLayout(layout);
  return new Map([
    ['format/layout.gen.ts', generateTypeScript(layout)],
    ['native/src/layout.gen.h', generateCpp(layout)],
  ]);
}

function main() {
  const files = generateAll(readFileSync(join(ROOT, 'spec/layout.json'), 'utf8'));
  let drifted = 0;
  for (const [path, text] of files) {
    if (!process.argv.includes('--check')) {
      writeFileSync(join(ROOT, path), text);
      continue;
    }
    if (readFileSync(join(ROOT, path), 'utf8') === text) continue;
    console.error(`${path} differs from what spec/layout.json gives. Run: node tools/gen_layout.mjs`);
    drifted += 1;
  }
  process.exitCode = drifted === 0 ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
