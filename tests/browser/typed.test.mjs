// The example typed: its enum checked against its TypeScript, and both in a real browser. support.mjs lists the environment variables.
//
//     cargo build --release --examples --all-features
//     cd tests/browser && npm ci && node --test

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { TEST, endsOnCtrlC, example, get, openLive, shoot, startServer, until } from './support.mjs';

const typed = example('typed');
const QUICK = { settings: { PACE: '50' } };
const here = path.dirname(fileURLToPath(import.meta.url));
const sources = path.join(here, '../../examples/typed');
const client = path.join(sources, 'client.ts');

// The output of the TypeScript compiler for these files.
async function tsc(...args) {
  const flags = ['--strict', '--target', 'es2022', '--module', 'es2022', '--moduleResolution', 'bundler', '--lib', 'es2022,dom',
    '--types', ''];
  try {
    await promisify(execFile)(process.execPath, [path.join(here, 'node_modules/typescript/bin/tsc'), ...flags, ...args]);
    return '';
  } catch (error) {
    return error.stdout || String(error);
  }
}

function folder(t) {
  const dir = mkdtempSync(path.join(tmpdir(), 'typed-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

// Writes each event as a literal, so that TypeScript also rejects extra fields, and rejects names that no event has.
function program(updates) {
  const names = [...new Set(updates.map(({ name }) => JSON.stringify(name)))].join(' | ');
  return `
    import type { Name, Update } from ${JSON.stringify(path.join(sources, 'client'))};
    export const updates: Update[] = [${updates.map(({ name, data }) => `{ name: ${JSON.stringify(name)}, data: ${data}, id: '' }`)}];
    export const unsent: Exclude<Name, ${names}>[] = [];
    export const none: [typeof unsent[number]] extends [never] ? true : never = true;
  `;
}

async function complaints(t, updates) {
  const file = path.join(folder(t), 'sent.ts');
  writeFileSync(file, program(updates));
  return tsc('--noEmit', file);
}

test('typed: what the server sends is what client.ts expects, no more and no less', TEST, async (t) => {
  const server = await startServer(t, typed, QUICK);
  const { text } = await get(`${server.origin}/events`, { enough: (text) => text.split('event: delivered').length > 2 });
  const sent = [...text.matchAll(/^event: (.+)\nid: .+\ndata: (.+)\n\n/gm)].map(([, name, data]) => ({ name, data }));
  // Two orders: with and without a note, paid in both ways.
  assert.deepEqual([...new Set(sent.map(({ name }) => name))], ['opened', 'placed', 'paid', 'out-for-delivery', 'delivered']);
  assert.equal(await complaints(t, sent), '');

  // Shows that the check can fail.
  const paid = sent.find(({ name }) => name === 'paid');
  const changed = (change) => complaints(t, [...sent, { ...paid, ...change }]);
  assert.match(await changed({ name: 'refunded' }), /error TS/, 'a variant that client.ts does not know');
  assert.match(await changed({ data: paid.data.replace('}', ',"tip":1}') }), /error TS/, 'a field too many');
  assert.match(await changed({ data: paid.data.replace('"order"', '"number"') }), /error TS/, 'a field by another name');
  assert.match(await changed({ data: paid.data.replace(/"by":"\w+"/, '"by":"cash"') }), /error TS/, 'another value');
  assert.match(await complaints(t, sent.filter(({ name }) => name !== 'paid')), /error TS/, 'a variant that is never sent');
});

test('typed: a missing case does not compile, and client.js is compiled from client.ts', TEST, async (t) => {
  const dir = folder(t);
  assert.equal(await tsc('--outDir', dir, client), '');
  const script = readFileSync(path.join(dir, 'client.js'), 'utf8');
  assert.equal(script, readFileSync(path.join(sources, 'client.js'), 'utf8'), 'run tsc again');
  const { origin } = await startServer(t, typed, QUICK);
  assert.equal((await get(`${origin}/client.js`)).text, script);

  const text = readFileSync(client, 'utf8');
  const without = { name: /^ {2}delivered: true,\n/m, case: /^ {4}case 'delivered':\n.*\n/m };
  for (const [what, pattern] of Object.entries(without)) {
    const file = path.join(dir, `${what}.ts`);
    assert.match(text, pattern);
    writeFileSync(file, text.replace(pattern, ''));
    assert.match(await tsc('--noEmit', file), /error TS/, `without the ${what}`);
  }
});

test('typed: the page describes each variant in words', TEST, async (t) => {
  const server = await startServer(t, typed, QUICK);
  const page = await openLive(t, server.origin);
  const updates = () => page.$$eval('#updates > li', (items) => items.map(
    (item) => [item.dataset.name, item.children[1].textContent],
  ).reverse());
  await until('two orders are delivered', async () => (await updates()).length >= 9);
  assert.deepEqual((await updates()).slice(0, 9), [
    ['opened', 'The shop is open'],
    ['placed', 'Order 1: a lamp, two bulbs'],
    ['paid', 'Order 1: paid 59.80 by card'],
    ['out-for-delivery', 'Order 1: on its way'],
    ['delivered', 'Order 1: delivered'],
    ['placed', 'Order 2: a lamp, two bulbs, with a note: “For your desk”'],
    ['paid', 'Order 2: paid 59.80 by transfer'],
    ['out-for-delivery', 'Order 2: on its way'],
    ['delivered', 'Order 2: delivered'],
  ]);
  await shoot(page, 'typed');
  assert.deepEqual(page.faults, []);
  await endsOnCtrlC(server);
});
