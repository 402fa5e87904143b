// What the proxy tests share: nginx with a configuration of docs/deployment.md, the app behind it, clients in front.
// Nothing but Node's own modules.
//
// EXAMPLES_DIR  where the examples' binaries are (default: target/release/examples)
// NGINX         nginx (default: the first on the PATH or in the usual places beside it)

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
// A heartbeat comes 15 seconds after the last write. What arrives within less has not been pushed through by one.
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

// Before any test is declared: one plain line says more than every test failing with the same stack.
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

// The path of an example's binary, which must be there.
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
    if (performance.now() > end) assert.fail(`still not so after ${bound} ms: ${what}`);
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

// `last` is the signal that ends it when the test is over.
async function launch(t, name, port, last, binary, args, env = {}) {
  const child = spawn(binary, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  const server = { child, last, port, output: '', exit: null };
  children.add(server);
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { server.output += text; });
  // `close`, not `exit`: by then all output has been read.
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
    if (server.exit) assert.fail(`${name} ended (${JSON.stringify(server.exit)}) and said: ${server.output}`);
    return accepts(port);
  });
  return server;
}

const rooms = example('rooms');

// The example with which nothing is on the wire but what is published. On the same port again, it is the same app restarted.
export async function startApp(t, port) {
  port ??= await freePort();
  return launch(t, 'the app', port, 'SIGKILL', rooms, [], { HOST, PORT: String(port) });
}

/* nginx */

// The configurations of the document, in its order.
function documented() {
  const text = readFileSync(path.join(here, '../../docs/deployment.md'), 'utf8');
  const blocks = [...text.matchAll(/^```nginx\n(.*?)^```$/gms)].map(([, block]) => block);
  assert.equal(blocks.length, 2, 'docs/deployment.md has two configurations of nginx');
  return { plain: blocks[0], recommended: blocks[1] };
}

const configurations = documented();
export const names = Object.keys(configurations);

// Only whole ports: a free one may be 30012, which begins like the documented 3001.
function replaceOnce(text, from, to) {
  const parts = text.split(new RegExp(`${from.replaceAll('.', '\\.')}(?!\\d)`));
  assert.equal(parts.length, 2, `"${from}" stands once in docs/deployment.md's configuration`);
  return parts.join(to);
}

// `apps` are the ports to put in place of the documented ones; nothing else of the document is changed. What stands around it is what nginx
// needs to run in the foreground, as anyone, beside another nginx.
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
  // Started by root, nginx does its work as somebody else.
  chmodSync(folder, 0o755);
  const file = path.join(folder, 'nginx.conf');
  writeFileSync(file, configuration(name, port, apps, folder));
  // SIGTERM: killed at once, it would leave its workers behind.
  return launch(t, 'nginx', port, 'SIGTERM', nginx, ['-p', folder, '-c', file, '-e', 'stderr']);
}

// Stands between nginx and the app, and counts the connections.
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

// Each request on a connection of its own: no pool keeps one to a server that has been restarted.
export function request(port, { method = 'GET', path: target, headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const sent = http.request({ host: HOST, port, method, path: target, headers, agent: false });
    sent.setTimeout(BOUND_MS, () => sent.destroy(new Error(`nothing came for ${BOUND_MS} ms`)));
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

// Resolves with the head. `events` grows from then on; each event has the time at which it came.
export async function open(t, port, { lastEventId, onEvent = () => {} } = {}) {
  const headers = { Accept: 'text/event-stream', 'Cache-Control': 'no-cache', 'Accept-Encoding': 'gzip, deflate, br, zstd' };
  if (lastEventId) headers['Last-Event-ID'] = lastEventId;
  const { sent, response } = await request(port, { path: '/events?name=someone&rooms=lobby', headers });
  // From here on silence is the server's right.
  sent.setTimeout(0);
  const stream = {
    status: response.statusCode, headers: response.headers, text: '', events: [], retry: undefined, lastEventId, ended: false,
  };
  let rest = '';
  let event = {};
  // As much of the format as our own server uses: LF only, and a space behind each colon.
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
  await until(`"${text}" has come`, () => textsOf(client).includes(text));
  return client.events.find(({ event, data }) => event === 'said' && JSON.parse(data).text === text);
}

// What an EventSource does: it comes back with the last id after every end and every lost connection, and never again after any other answer
// than a 200.
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
        // Not a stream of the app, which begins with a comment line.
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
