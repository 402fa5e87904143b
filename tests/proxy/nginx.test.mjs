// A real nginx in front of a real app, with the configurations in docs/deployment.md; support.mjs lists the environment variables.
//
//     cargo build --release --examples --all-features
//     cd tests/proxy && node --test

import assert from 'node:assert/strict';
import http from 'node:http';
import { once } from 'node:events';
import { test } from 'node:test';

import { HOST, TEST, follow, freePort, has, names, open, pause, request, say, startApp, startCounter, startNginx, textsOf, until } from './support.mjs';

// The recommended configuration has two apps. In tests with one app, nothing listens on the second port.
const portsOf = async (name, port) => (name === 'plain' ? [port] : [port, await freePort()]);

async function start(t, name) {
  const app = await startApp(t);
  const nginx = await startNginx(t, name, await portsOf(name, app.port));
  return { app, nginx };
}

for (const name of names) {
  test(`${name}: headers and the first line arrive at once, before any event, as the app sent them`, TEST, async (t) => {
    const { app, nginx } = await start(t, name);
    const direct = await open(t, app.port);
    assert.equal(direct.headers['x-accel-buffering'], 'no');

    // `open` resolves with the response headers, and nothing else is sent before its timeout that could flush them.
    const stream = await open(t, nginx.port);
    assert.equal(stream.status, 200);
    assert.equal(stream.headers['content-type'], 'text/event-stream');
    assert.equal(stream.headers['cache-control'], 'no-cache, no-store, no-transform');
    assert.equal(stream.headers['content-encoding'], undefined);
    assert.equal(stream.headers['content-length'], undefined);
    // nginx consumes this header.
    assert.equal(stream.headers['x-accel-buffering'], undefined);
    await until('the first line has come', () => stream.text.startsWith(':\n'));
    assert.deepEqual(textsOf(stream), []);
  });

  test(`${name}: each event arrives at once, without being flushed by a later one`, TEST, async (t) => {
    const { app, nginx } = await start(t, name);
    const stream = await open(t, nginx.port);
    const times = [];
    for (let n = 0; n < 50; n += 1) {
      const published = performance.now();
      // The next event is published only after this one has arrived, and no heartbeat is due in between, so nothing flushes it.
      await say(app.port, `message ${n}`);
      times.push((await has(stream, `message ${n}`)).at - published);
    }
    // The median, because a busy machine may delay one of these processes now and then, whereas a proxy that buffers delays every event.
    times.sort((a, b) => a - b);
    const median = times[times.length / 2];
    t.diagnostic(`publish to arrival: median ${median.toFixed(1)} ms, longest ${times.at(-1).toFixed(1)} ms`);
    assert.ok(median <= 100, `the median is ${median} ms`);
  });

  test(`${name}: a client that was cut off gets exactly what it missed`, TEST, async (t) => {
    const { app, nginx } = await start(t, name);
    const first = await open(t, nginx.port);
    for (const text of ['one', 'two']) await say(app.port, text);
    await has(first, 'two');
    await first.close();
    for (const text of ['three', 'four']) await say(app.port, text);
    const second = await open(t, nginx.port, { lastEventId: first.lastEventId });
    await say(app.port, 'five');
    await has(second, 'five');
    assert.deepEqual(textsOf(second), ['three', 'four', 'five']);
    assert.ok(second.events.every(({ event }) => event === 'said'), JSON.stringify(second.events));
  });

  test(`${name}: when a client disconnects, its connection to the app closes`, TEST, async (t) => {
    const app = await startApp(t);
    const counter = await startCounter(t, app.port);
    const nginx = await startNginx(t, name, await portsOf(name, counter.port));
    const streams = await Promise.all(Array.from({ length: 20 }, () => open(t, nginx.port)));
    assert.equal(counter.open, 20);
    await streams[0].close();
    await until('one connection is gone', () => counter.open === 19);
    await Promise.all(streams.map((stream) => stream.close()));
    await until('all connections are gone', () => counter.open === 0);
  });

  test(`${name}: a reload of nginx cuts no stream`, TEST, async (t) => {
    const { app, nginx } = await start(t, name);
    const before = await open(t, nginx.port);
    nginx.child.kill('SIGHUP');
    await until('the old worker is on its way out', () => nginx.output.includes('gracefully shutting down'));
    await until('the new worker accepts', async () => {
      const stream = await open(t, nginx.port);
      return stream.status === 200;
    });
    const after = await open(t, nginx.port);
    await say(app.port, 'to both');
    await has(before, 'to both');
    await has(after, 'to both');
    assert.equal(before.ended, false);
  });

  test(`${name}: after a restart of nginx, a client reconnects by itself and has missed nothing`, TEST, async (t) => {
    const { app, nginx } = await start(t, name);
    const client = follow(t, nginx.port);
    await until('the client is connected', () => client.answers.length === 1);
    await say(app.port, 'before');
    await has(client, 'before');
    await nginx.kill('SIGTERM');
    await say(app.port, 'meanwhile');
    await until('the client has tried in vain', () => client.answers.includes('no connection'));
    await startNginx(t, name, await portsOf(name, app.port), nginx.port);
    await say(app.port, 'after');
    await has(client, 'after');
    assert.deepEqual(textsOf(client), ['before', 'meanwhile', 'after']);
    assert.equal(client.events.some(({ event }) => event === 'gap'), false);
  });
}

test('plain: without an app, nginx answers 502, which ends an EventSource for good', TEST, async (t) => {
  const { app, nginx } = await start(t, 'plain');
  const client = follow(t, nginx.port);
  await until('the client is connected', () => client.answers.length === 1);
  // As in a deployment: the app ends its streams, asks the clients to reconnect, and has exited when they do.
  await app.kill('SIGINT');
  await until('the client has given up', () => client.dead);
  assert.deepEqual(client.answers, [200, 502]);
});

test('recommended: without an app, clients are asked to retry until there is one', TEST, async (t) => {
  const { app, nginx } = await start(t, 'recommended');
  const client = follow(t, nginx.port);
  await until('the client is connected', () => client.answers.length === 1);
  await app.kill('SIGINT');
  const answer = await open(t, nginx.port);
  assert.equal(answer.status, 200);
  assert.equal(answer.headers['content-type'], 'text/event-stream');
  await answer.closed;
  assert.match(answer.text, /^retry: [2-5]000\n:\n$/);
  await until('the client was told so, too', () => client.putOff > 0);
  await startApp(t, app.port);
  await until('the client is told what it has missed', () => client.events.some(({ event }) => event === 'gap'));
  await say(app.port, 'here again');
  await has(client, 'here again');
  assert.ok(client.answers.every((status) => status === 200), JSON.stringify(client.answers));
});

test('recommended: two apps are restarted one after the other, and clients get only 200s', TEST, async (t) => {
  const apps = [await startApp(t), await startApp(t)];
  const ports = apps.map(({ port }) => port);
  const nginx = await startNginx(t, 'recommended', ports);
  const clients = Array.from({ length: 8 }, () => follow(t, nginx.port));
  await until('all are connected', () => clients.every(({ answers }) => answers.length === 1));
  for (const [index, app] of apps.entries()) {
    await app.kill('SIGINT');
    // Each client of the stopped app moves to the other app, which is still running in the first round and has just started in the second.
    await Promise.all(clients.map(async (client) => {
      const other = ports[1 - index];
      await until('the client hears the other app', async () => {
        const text = `${index} ${Math.random()}`;
        await say(other, text);
        await pause(50);
        return textsOf(client).includes(text);
      });
    }));
    await startApp(t, app.port);
  }
  for (const { answers, events, putOff } of clients) {
    assert.ok(answers.every((status) => status === 200), JSON.stringify(answers));
    assert.equal(putOff, 0, 'there was an app at every moment');
    assert.ok(events.some(({ event }) => event === 'gap'), 'the client was told that it is with another app');
  }
});

test('recommended: the app learns the host and the client\'s address, which the client cannot forge', TEST, async (t) => {
  const seen = [];
  const app = http.createServer((incoming, response) => {
    seen.push(incoming.headers);
    response.end();
  });
  app.listen(0, HOST);
  await once(app, 'listening');
  t.after(() => {
    app.closeAllConnections();
    app.close();
  });
  const nginx = await startNginx(t, 'recommended', [app.address().port, await freePort()]);
  for (const path of ['/', '/events']) {
    const { response } = await request(nginx.port, { path, headers: { Host: 'example.com:8080', 'X-Real-IP': '192.0.2.1' } });
    response.resume();
    await once(response, 'end');
  }
  assert.deepEqual(seen.map(({ host }) => host), ['example.com:8080', 'example.com:8080']);
  assert.deepEqual(seen.map((headers) => headers['x-real-ip']), [HOST, HOST]);
});
