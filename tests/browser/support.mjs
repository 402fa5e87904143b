// Helpers of the browser tests: the example binaries, the servers, a proxy that can cut connections, the browser.
//
// EXAMPLES_DIR  the directory of the examples' binaries (default: target/release/examples)
// CHROMIUM      the browser (default: the first of chromium, chromium-browser, google-chrome on the PATH)
// SCREENSHOTS   a directory; if set, pictures of the pages are saved there

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

import { HOST, freePort, pause } from '../support.mjs';

export { HOST, freePort };

const here = path.dirname(fileURLToPath(import.meta.url));
export const BOUND_MS = 20_000;
export const SHUTDOWN_BOUND_MS = 5_000;
export const TEST = { timeout: 90_000 };

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

function findChromium() {
  if (process.env.CHROMIUM) return isExecutable(process.env.CHROMIUM) ? process.env.CHROMIUM : null;
  const folders = (process.env.PATH ?? '').split(path.delimiter).filter(Boolean);
  for (const name of ['chromium', 'chromium-browser', 'google-chrome']) {
    for (const folder of folders) {
      const file = path.join(folder, name);
      if (isExecutable(file)) return file;
    }
  }
  return null;
}

// Called before any test is declared, so that a missing tool causes one clear message instead of many failed tests.
function refuse(reason) {
  console.error(reason);
  process.exit(1);
}

const executablePath = findChromium();
if (!executablePath) {
  refuse('no Chromium found: set CHROMIUM to its executable, or put chromium, chromium-browser or google-chrome on the PATH');
}
const examples = path.resolve(process.env.EXAMPLES_DIR ?? path.join(here, '../../target/release/examples'));

// The path of an example's binary, which must exist.
export function example(name, file = path.join(examples, name)) {
  file = path.resolve(file);
  if (!isExecutable(file)) {
    refuse(`no executable at ${file}: build it with \`cargo build --release --examples --all-features\`, or set EXAMPLES_DIR`);
  }
  return file;
}

const screenshots = process.env.SCREENSHOTS;
if (screenshots) mkdirSync(screenshots, { recursive: true });

/* Waiting */

export async function until(what, condition, bound = BOUND_MS) {
  const end = Date.now() + bound;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) assert.fail(`timed out after ${bound} ms: ${what}`);
    await pause(20);
  }
}

export async function within(what, promise, bound = BOUND_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new assert.AssertionError({ message: `timed out after ${bound} ms: ${what}` })), bound);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/* The server */

const children = new Set();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});

// With `stdin` set to `pipe`, the process reads what the test writes to `child.stdin`.
export function launch(binary, port, settings = {}, stdin = 'ignore') {
  const child = spawn(binary, [], {
    env: { ...process.env, ...settings, HOST, PORT: String(port) },
    stdio: [stdin, 'pipe', 'pipe'],
  });
  children.add(child);
  const process_ = { child, output: '', exit: null };
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { process_.output += text; });
  // `close`, not `exit`, because it fires after all output has been read.
  process_.closed = once(child, 'close').then(([code, signal]) => {
    children.delete(child);
    process_.exit = { code, signal };
    return process_.exit;
  });
  return process_;
}

export async function startServer(t, binary, { port, settings, stdin } = {}) {
  port ??= await freePort();
  const server = launch(binary, port, settings, stdin);
  server.port = port;
  server.origin = `http://${HOST}:${port}`;
  server.kill = async (signal) => {
    server.child.kill(signal);
    return server.closed;
  };
  t.after(() => server.kill('SIGKILL'));
  await until(`${server.origin} answers`, async () => {
    if (server.exit) assert.fail(`the server exited (${JSON.stringify(server.exit)}), and its output was: ${server.output}`);
    try {
      return (await fetch(`${server.origin}/`)).ok;
    } catch {
      return false;
    }
  });
  return server;
}

export async function endsOnCtrlC(server) {
  const exit = await within('the process ends', server.kill('SIGINT'), SHUTDOWN_BOUND_MS);
  assert.deepEqual(exit, { code: 0, signal: null }, server.output);
}

// Reads a response without a browser, to its end or until `enough` accepts the text so far. Not fetch, because it does not allow setting Origin.
export function get(url, { headers = {}, method = 'GET', enough = () => false } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers, agent: false });
    const timer = setTimeout(() => request.destroy(new Error(`${url} did not end`)), BOUND_MS);
    request.on('close', () => clearTimeout(timer));
    request.on('error', reject);
    request.on('response', (response) => {
      let text = '';
      const done = () => resolve({ status: response.statusCode, headers: response.headers, text });
      response.setEncoding('utf8').on('error', reject).on('end', done).on('data', (chunk) => {
        text += chunk;
        if (!enough(text)) return;
        done();
        request.destroy();
      });
    });
    request.end();
  });
}

// A TCP proxy that can cut its connections.
export async function startProxy(t, port) {
  const sockets = new Set();
  const proxy = { mode: 'pass', refused: 0 };
  const listener = net.createServer((client) => {
    client.on('error', () => {});
    if (proxy.mode === 'cut') {
      proxy.refused += 1;
      client.destroy();
      return;
    }
    if (proxy.mode === 'unavailable') {
      client.once('data', () => client.end('HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'));
      return;
    }
    const server = net.connect(port, HOST);
    for (const [socket, other] of [[client, server], [server, client]]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  });
  listener.listen(await freePort(), HOST);
  await once(listener, 'listening');
  proxy.origin = `http://${HOST}:${listener.address().port}`;
  proxy.cut = (mode = 'cut') => {
    proxy.mode = mode;
    for (const socket of sockets) socket.destroy();
  };
  proxy.mend = () => { proxy.mode = 'pass'; };
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => listener.close(resolve));
  });
  return proxy;
}

/* The browser */

let browser;

const launchOptions = {
  executablePath,
  // The sandbox does not work for root, which CI machines often are. Everyone else keeps it.
  chromiumSandbox: process.getuid?.() !== 0,
  args: [
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
};

before(async () => {
  browser = await chromium.launch(launchOptions);
});

after(async () => {
  for (const child of children) child.kill('SIGKILL');
  await browser?.close();
});

async function openIn(context, url) {
  const page = await context.newPage();
  page.setDefaultTimeout(BOUND_MS);
  page.faults = [];
  page.on('pageerror', (error) => page.faults.push(error.message));
  await page.goto(url);
  return page;
}

// `session` is the page's session storage at its first load; other options go to the browser context.
export async function openPage(t, url, { session = {}, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, ...options });
  t.after(() => context.close());
  await context.addInitScript((entries) => {
    for (const [key, value] of entries) sessionStorage.getItem(key) ?? sessionStorage.setItem(key, value);
  }, Object.entries(session));
  return openIn(context, url);
}

// Starts a separate browser with these preferences, because some apply only to a persistent profile, and not to a context as above.
export async function openWithPreferences(t, url, preferences) {
  const profile = mkdtempSync(path.join(tmpdir(), 'browser-'));
  let context;
  t.after(async () => {
    await context?.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  });
  mkdirSync(path.join(profile, 'Default'));
  writeFileSync(path.join(profile, 'Default', 'Preferences'), JSON.stringify(preferences));
  context = await chromium.launchPersistentContext(profile, launchOptions);
  return openIn(context, url);
}

export async function openLive(t, url, options) {
  const page = await openPage(t, url, options);
  await stateIs(page, 'live');
  return page;
}

export async function stateIs(page, state) {
  await until(`the page's state is ${state}`, async () => (await page.getAttribute('#state', 'data-state')) === state);
}

// Cuts the connection, and waits for a failed attempt of the browser, which proves that it was cut off.
export async function cutOff(page, proxy) {
  const before = proxy.refused;
  proxy.cut();
  await until('the browser has tried to connect and failed', () => proxy.refused > before);
  await stateIs(page, 'reconnecting');
}

export async function shoot(page, name) {
  if (screenshots) await page.screenshot({ path: path.join(screenshots, `${name}.png`), fullPage: true });
}
