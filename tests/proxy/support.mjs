// Helpers of the proxy tests: nginx with a configuration from docs/deployment.md, the app, and the clients. Uses only modules of Node.js.
//
// EXAMPLES_DIR  the directory of the examples' binaries (default: target/release/examples)
// NGINX         nginx (default: the first on the PATH or in the usual directories)

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, chmodSync, constants, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { HOST, freePort, pause } from '../support.mjs';

export { HOST, freePort, pause };

const here = path.dirname(fileURLToPath(import.meta.url));
// Heartbeats are sent 15 seconds after the last write, so an event that arrives sooner was not flushed by one.
export const BOUND_MS = 10_000;
export const TEST = { timeout: 60_000 };

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

// Called before any test is declared, so that a missing tool causes one clear message instead of many failed tests.
function refuse(reason) {
  console.error(reason);
  process.exit(1);
}

function findNginx() {
  if (process.env.NGINX) return isExecutable(process.env.NGINX) ? process.env.NGINX : null;
  // Debian's is in /usr/sbin, which is not on everyone's PATH.
  const folders = [...(process.env.PATH ?? '').split(path.delimiter), '/usr/sbin', '/usr/local/sbin'].filter(Boolean);
  return folders.map((folder) => path.join(folder, 'nginx')).find(isExecutable);
}

const nginx = findNginx() ?? refuse('no nginx found: set NGINX to its executable, or install it');

// The path of an example's binary, which must exist.
export function example(name) {
  const file = path.resolve(process.env.EXAMPLES_DIR ?? path.join(here, '../../target/release/examples'), name);
  return isExecutable(file)
    ? file
    : refuse(`no executable at ${file}: build it with \`cargo build --release --examples --all-features\`, or set EXAMPLES_DIR`);
}

/* Waiting */

export async function until(what, condition, bound = BOUND_MS) {
  const end = performance.now() + bound;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > end) assert.fail(`timed out after ${bound} ms: ${what}`);
    await pause(5);
  }
}

/* Processes */

const children = new Set();
process.on('exit', () => {
  for (const { child, last } of children) child.kill(last);
});

function accepts(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, HOST);
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

// `last` is the signal that stops the process after the test.
async function launch(t, name, port, last, binary, args, env = {}) {
  const child = spawn(binary, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  const server = { child, last, port, output: '', exit: null };
  children.add(server);
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { server.output += text; });
  // `close`, not `exit`, because it fires after all output has been read.
  server.closed = once(child, 'close').then(([code, signal]) => {
    children.delete(server);
    server.exit = { code, signal };
    return server.exit;
  });
  server.kill = async (signal) => {
    child.kill(signal);
    return server.closed;
  };
  t.after(() => server.kill(last));
  await until(`${name} accepts connections`, () => {
    if (server.exit) assert.fail(`${name} exited (${JSON.stringify(server.exit)}), and its output was: ${server.output}`);
    return accepts(port);
  });
  return server;
}

const rooms = example('rooms');

// An example that sends only published events. Starting it again on the same port restarts the app.
export async function startApp(t, port) {
  port ??= await freePort();
  return launch(t, 'the app', port, 'SIGKILL', rooms, [], { HOST, PORT: String(port) });
}

/* nginx */

// The configurations in the document, in order.
function documented() {
  const text = readFileSync(path.join(here, '../../docs/deployment.md'), 'utf8');
  const blocks = [...text.matchAll(/^```nginx\n(.*?)^```$/gms)].map(([, block]) => block);
  assert.equal(blocks.length, 2, 'docs/deployment.md has two configurations of nginx');
  return { plain: blocks[0], recommended: blocks[1] };
}

const configurations = documented();
export const names = Object.keys(configurations);

// Matches whole ports only, because a free port such as 30012 begins like the documented 3001.
function replaceOnce(text, from, to) {
  const parts = text.split(new RegExp(`${from.replaceAll('.', '\\.')}(?!\\d)`));
  assert.equal(parts.length, 2, `"${from}" occurs once in the configuration in docs/deployment.md`);
  return parts.join(to);
}

// Only the ports in the documented configuration are replaced, by `apps`. The lines around it let nginx run in the foreground, as any user, and
// next to another nginx.
function configuration(name, port, apps, folder) {
  let text = replaceOnce(configurations[name], 'listen 80;', `listen ${HOST}:${port};`);
  apps.forEach((app, index) => { text = replaceOnce(text, `127.0.0.1:${3000 + index}`, `${HOST}:${app}`); });
  assert.doesNotMatch(text, /:300\d\b/, 'every app of the configuration was given a port');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `  ${kind}_temp_path ${folder}/${kind};`);
  return [
    'daemon off;', `pid ${folder}/pid;`, 'error_log stderr notice;', 'events { }', 'http {', '  access_log off;', ...temporary, text, '}', '',
  ].join('\n');
}

export async function startNginx(t, name, apps, port) {
  port ??= await freePort();
  const folder = mkdtempSync(path.join(os.tmpdir(), 'axum-sse-nginx-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  // If root starts nginx, its workers run as another user.
  chmodSync(folder, 0o755);
  const file = path.join(folder, 'nginx.conf');
  writeFileSync(file, configuration(name, port, apps, folder));
  // SIGTERM, because after SIGKILL its workers would keep running.
  return launch(t, 'nginx', port, 'SIGTERM', nginx, ['-p', folder, '-c', file, '-e', 'stderr']);
}

// A proxy between nginx and the app that counts connections.
export async function startCounter(t, port) {
  const sockets = new Set();
  const counter = { open: 0 };
  const listener = net.createServer((client) => {
    const server = net.connect(port, HOST);
    counter.open += 1;
    client.on('close', () => { counter.open -= 1; });
    for (const [socket, other] of [[client, server], [server, client]]) {
      sockets.add(socket);
      socket.on('error', () => {}).on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  });
  listener.listen(0, HOST);
  await once(listener, 'listening');
  counter.port = listener.address().port;
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => listener.close(resolve));
  });
  return counter;
}

/* Clients */

// Each request opens a new connection, because a pool could keep one to a server that has been restarted.
export function request(port, { method = 'GET', path: target, headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const sent = http.request({ host: HOST, port, method, path: target, headers, agent: false });
    sent.setTimeout(BOUND_MS, () => sent.destroy(new Error(`nothing arrived for ${BOUND_MS} ms`)));
    sent.once('error', reject).once('response', (response) => resolve({ sent, response }));
    sent.end(body);
  });
}

export async function say(port, text) {
  const { response } = await request(port, {
    method: 'POST',
    path: '/rooms/lobby',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ from: 'test', text }),
  });
  response.resume();
  await once(response, 'end');
  assert.equal(response.statusCode, 200);
}

// Resolves with the response headers. `events` keeps growing; each event has its time of arrival.
export async function open(t, port, { lastEventId, onEvent = () => {} } = {}) {
  const headers = { Accept: 'text/event-stream', 'Cache-Control': 'no-cache', 'Accept-Encoding': 'gzip, deflate, br, zstd' };
  if (lastEventId) headers['Last-Event-ID'] = lastEventId;
  const { sent, response } = await request(port, { path: '/events?name=someone&rooms=lobby', headers });
  // An event stream may stay silent.
  sent.setTimeout(0);
  const stream = {
    status: response.statusCode, headers: response.headers, text: '', events: [], retry: undefined, lastEventId, ended: false,
  };
  let rest = '';
  let event = {};
  // Parses only what this crate sends: LF line ends, and a space after each colon.
  const take = (line) => {
    const [, name, value] = /^(\w*): ?(.*)$/.exec(line) ?? [];
    if (line === '') {
      if (event.id !== undefined) stream.lastEventId = event.id;
      if (event.data !== undefined) {
        const whole = { event: 'message', ...event, at: performance.now() };
        stream.events.push(whole);
        onEvent(whole);
      }
      event = {};
    } else if (name === 'retry') {
      stream.retry = Number(value);
    } else if (name) {
      event[name] = name === 'data' && event.data !== undefined ? `${event.data}\n${value}` : value;
    }
  };
  response.setEncoding('utf8').on('data', (text) => {
    stream.text += text;
    const lines = (rest + text).split('\n');
    rest = lines.pop();
    lines.forEach(take);
  });
  stream.closed = new Promise((resolve) => { response.once('close', resolve); }).then(() => { stream.ended = true; });
  response.on('error', () => {});
  stream.close = () => {
    sent.destroy();
    return stream.closed;
  };
  t.after(() => stream.close());
  return stream;
}

export const textsOf = ({ events }) => events.filter(({ event }) => event === 'said').map(({ data }) => JSON.parse(data).text);

export async function has(client, text) {
  await until(`"${text}" has arrived`, () => textsOf(client).includes(text));
  return client.events.find(({ event, data }) => event === 'said' && JSON.parse(data).text === text);
}

// Behaves like an EventSource: reconnects with the last id after each end and each lost connection, and stops after any status other than 200.
export function follow(t, port) {
  const client = { answers: [], events: [], putOff: 0, lastEventId: undefined, dead: false };
  let running = true;
  let stream;
  let retry = 1000;
  const loop = async () => {
    while (running) {
      try {
        stream = await open(t, port, { lastEventId: client.lastEventId, onEvent: (event) => client.events.push(event) });
        client.answers.push(stream.status);
        if (stream.status !== 200 || stream.headers['content-type'] !== 'text/event-stream') {
          client.dead = true;
          return;
        }
        await stream.closed;
        // This stream is from nginx: one from the app begins with a comment line.
        if (stream.text.startsWith('retry:')) client.putOff += 1;
        client.lastEventId = stream.lastEventId;
        retry = stream.retry ?? retry;
      } catch {
        client.answers.push('no connection');
      }
      if (running) await pause(retry);
    }
  };
  const done = loop();
  t.after(() => {
    running = false;
    stream?.close();
    return done;
  });
  return client;
}
