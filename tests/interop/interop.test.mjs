// One server sends every shape of event to clients written by others. Each client must report the same list of events, except for the differences
// listed in differences.mjs; a listed difference that no longer occurs also fails. The scene `resume` also checks the client's connections: it must
// reconnect with the right id after each cut, and must not reconnect after a 204.
//
// Needs `npm ci`, `pip install -r requirements.txt` and `cargo build -p interop`; tests/run.sh runs all of them.
//
// SERVER    the server (default: target/debug/interop-server)
// RUST      the clients from crates.io (default: target/debug/interop-clients)
// PYTHON    an interpreter that has the clients from PyPI (default: target/interop-python/bin/python)
// CHROMIUM  the browsers (default: chromium, chromium-browser or google-chrome on the PATH; firefox-esr or firefox)
// FIREFOX

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';

import { differences } from './differences.mjs';
import { scenes } from './event-source.mjs';

const BOUND_MS = 60_000;
const here = path.dirname(fileURLToPath(import.meta.url));
const built = (name) => path.join(here, '../../target', name);

const server = process.env.SERVER ?? built('debug/interop-server');
const rust = process.env.RUST ?? built('debug/interop-clients');
const python = process.env.PYTHON ?? built('interop-python/bin/python');
const chromium = process.env.CHROMIUM ?? onPath('chromium', 'chromium-browser', 'google-chrome');
const firefox = process.env.FIREFOX ?? onPath('firefox-esr', 'firefox');

function onPath(...names) {
  const folders = (process.env.PATH ?? '').split(path.delimiter).filter(Boolean);
  const files = names.flatMap((name) => folders.map((folder) => path.join(folder, name)));
  return files.find((file) => existsSync(file)) ?? names[0];
}

/* Clients: each is a function from the run's name to the transcript */

const clients = {
  Chromium: inBrowser((profile, url) => [
    chromium,
    '--headless=new',
    '--disable-gpu',
    '--no-first-run',
    '--disable-background-networking',
    // The sandbox does not work for root, which CI machines often are. Everyone else keeps it.
    ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
    `--user-data-dir=${profile}`,
    url,
  ]),
  Firefox: inBrowser((profile, url) => {
    writeFileSync(path.join(profile, 'user.js'), 'user_pref("datareporting.policy.dataSubmissionEnabled", false);\n');
    return [firefox, '--headless', '--no-remote', '--profile', profile, url];
  }),
  eventsource: npm('eventsource'),
  undici: npm('undici'),
  'eventsource-parser': npm('eventsource-parser'),
  '@microsoft/fetch-event-source': npm('fetch-event-source'),
  'httpx-sse': pypi('httpx-sse'),
  'sseclient-py': pypi('sseclient-py'),
  openai: pypi('openai'),
  'eventsource-stream': crate('eventsource-stream'),
  'reqwest-eventsource': crate('reqwest-eventsource'),
};

function npm(name) {
  return (run) => output(process.execPath, path.join(here, 'clients.mjs'), name, base, run);
}

function pypi(name) {
  return (run) => output(python, path.join(here, 'clients.py'), name, base, run);
}

function crate(name) {
  return (run) => output(rust, name, base, run);
}

// Runs a program and parses its output as JSON.
async function output(...command) {
  const child = launch(command);
  const [code, signal] = await within(once(child, 'close'), child);
  assert.equal(code, 0, `${command[1]} exited with ${code ?? signal}: ${child.errors}`);
  return JSON.parse(child.printed);
}

// Opens the page in a browser, and returns what the page posts.
function inBrowser(command) {
  return async (run) => {
    const profile = mkdtempSync(path.join(tmpdir(), 'interop-'));
    const child = launch(command(profile, `${base}/page?run=${run}`));
    const closed = once(child, 'close').catch(() => {});
    try {
      return await within(posted(run), child);
    } finally {
      end(child);
      await closed;
      rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
    }
  };
}

async function posted(run) {
  for (;;) {
    const transcript = await (await fetch(`${base}/transcripts/${run}`)).json();
    if (transcript) return transcript;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/* Processes */

const children = new Set();
process.on('exit', () => children.forEach(end));

// Starts a process group, because a browser has many processes.
function launch([program, ...options]) {
  const child = spawn(program, options, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  child.printed = '';
  child.errors = '';
  child.stdout.setEncoding('utf8').on('data', (text) => { child.printed += text; });
  child.stderr.setEncoding('utf8').on('data', (text) => { child.errors += text; });
  child.once('error', (error) => { child.errors += error.message; });
  child.once('close', () => children.delete(child));
  children.add(child);
  return child;
}

function end(child) {
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It has exited already.
  }
}

// Rejects after a timeout, or when the process exits first.
async function within(promise, child) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`timed out after ${BOUND_MS} ms: ${child.errors}`)), BOUND_MS);
  });
  const ended = once(child, 'close').then(() => {
    throw new Error(`${child.spawnfile} has exited: ${child.errors}`);
  });
  try {
    return await Promise.race([promise, late, ended]);
  } finally {
    clearTimeout(timer);
    ended.catch(() => {});
  }
}

let base;

before(async () => {
  const child = launch([server]);
  await within(once(child.stdout, 'data'), child);
  base = child.printed.match(/http:\/\/\S+/)[0];
});

after(() => {
  children.forEach(end);
  console.log(`\n${table()}\n`);
});

/* The comparison */

const outcomes = new Map();

for (const name of Object.keys(differences)) assert.ok(name in clients, `differences.mjs: no client is named ${name}`);

// Clients mostly wait to reconnect, so several run at once.
describe('clients', { concurrency: 4 }, () => {
  for (const [name, read] of Object.entries(clients)) {
    test(name, { timeout: BOUND_MS + 10_000 }, () => check(name, read));
  }
});

async function check(name, read) {
  outcomes.set(name, 'FAILED');
  const run = encodeURIComponent(name);
  const transcript = await read(run);
  assert.ok(!transcript.failed, transcript.failed);
  const { expected, connections } = await (await fetch(`${base}/runs/${run}`)).json();
  for (const difference of differences[name] ?? []) apply(difference, expected, connections);
  for (const scene of scenes) compare(scene, transcript[scene], expected[scene]);
  assert.deepEqual(connections.got, connections.expected, 'the Last-Event-ID of each connection to /resume');
  outcomes.set(name, scenes.map((scene) => transcript[scene].length).join(', '));
}

function apply({ what, change, connections: changeIds }, expected, connections) {
  const before = JSON.stringify(expected);
  connections.expected = changeIds?.(connections.expected, expected.resume) ?? connections.expected;
  for (const scene of scenes) expected[scene] = expected[scene].flatMap((event, at) => change(event, { scene, at }));
  assert.notEqual(JSON.stringify(expected), before, `no event is changed by this difference: ${what}`);
}

// Compares event by event, and shows the first few that differ.
function compare(scene, got, expected) {
  const indices = Array.from({ length: Math.max(got.length, expected.length) }, (_, at) => at);
  const differing = indices.filter((at) => !isDeepStrictEqual(shown(got[at]), shown(expected[at]))).slice(0, 6);
  const excerpt = (events) => differing.map((at) => ({ event: expected[at]?.what ?? 'an extra event', ...shown(events[at]) }));
  assert.deepEqual(excerpt(got), excerpt(expected), `/${scene}`);
}

function shown(event) {
  if (!event) return event;
  const { type, data, lastEventId } = event;
  if (data.length <= 200) return { type, data, lastEventId };
  const sha256 = createHash('sha256').update(data).digest('hex');
  return { type, data: `${data.slice(0, 60)}…`, length: data.length, sha256, lastEventId };
}

function table() {
  const width = Math.max(...Object.keys(clients).map((name) => name.length));
  const rows = [`${'client'.padEnd(width)}  events of ${scenes.join(', ')}`];
  for (const name of Object.keys(clients)) {
    rows.push(`${name.padEnd(width)}  ${outcomes.get(name) ?? 'not run'}`);
    for (const { what } of differences[name] ?? []) rows.push(`${' '.repeat(width)}    ${what}`);
  }
  return rows.join('\n');
}
