// The quickstart example in a real browser.
//
//     cargo build --release --examples --all-features
//     cd tests/browser && npm ci && node --test
//
// QUICKSTART  the binary (default: quickstart in EXAMPLES_DIR); support.mjs lists the other environment variables

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { test } from 'node:test';

import {
  BOUND_MS, HOST, SHUTDOWN_BOUND_MS, TEST, example, freePort, launch, openLive, openPage, shoot, startProxy, startServer as start, stateIs, until,
  within,
} from './support.mjs';

const MAX_NOTE = 64 * 1024;
const quickstart = example('quickstart', process.env.QUICKSTART);

const startServer = (t, { port, history = 1000 } = {}) => start(t, quickstart, { port, settings: { HISTORY: String(history) } });

// Not fetch, because it does not allow setting Origin.
function post(origin, body, headers = {}) {
  const bytes = Buffer.from(body);
  return new Promise((resolve, reject) => {
    const request = http.request(`${origin}/publish`, {
      method: 'POST',
      agent: false,
      headers: { 'Content-Type': 'text/plain;charset=UTF-8', 'Content-Length': bytes.length, ...headers },
    });
    request.setTimeout(BOUND_MS, () => request.destroy(new Error('POST /publish was not answered in time')));
    request.on('error', reject);
    request.on('response', (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk) => { text += chunk; }).on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode, text }));
    });
    request.end(bytes);
  });
}

async function publish(origin, body) {
  const { status, text } = await post(origin, body);
  assert.ok(status === 200 || status === 202, `publishing failed with ${status}: ${text}`);
}

/* The page */

const notesOf = (page) => page.$$eval('#notes > li .note', (items) => items.map((item) => item.textContent));
const numbersOf = (page) => page.evaluate(() => ({
  n: Number(document.getElementById('sample').textContent),
  id: document.getElementById('last-id').textContent,
  points: Number(document.getElementById('chart').dataset.points),
}));

async function logOf(page, kind) {
  const lines = await page.$$eval('#log > li', (items) => items.map((item) => ({ ...item.dataset, text: item.textContent })));
  // The page shows the newest first.
  return lines.reverse().filter((line) => kind === undefined || line.kind === kind);
}

async function noteShows(page, text) {
  await until(`the note ${JSON.stringify(text)} shows`, async () => (await notesOf(page)).includes(text));
}

async function numbersMove(page) {
  const first = await until('a sample shows', async () => {
    const numbers = await numbersOf(page);
    return numbers.n > 0 && numbers;
  });
  const later = await until('the numbers move', async () => {
    const numbers = await numbersOf(page);
    return numbers.n > first.n && numbers;
  });
  assert.notEqual(later.id, first.id);
  return later;
}

// Records every event with a second EventSource.
async function record(page) {
  await page.evaluate(() => {
    window.record = [];
    const source = new EventSource('events');
    for (const kind of ['open', 'error', 'message', 'note', 'gap']) {
      source.addEventListener(kind, (event) => window.record.push({ kind, data: event.data, id: event.lastEventId }));
    }
  });
}

const recordOf = (page, kind) => page.evaluate((k) => window.record.filter((e) => k === undefined || e.kind === k), kind);

async function recorded(page, what, condition) {
  return until(what, async () => {
    const events = await recordOf(page);
    return condition(events) && events;
  });
}

const samples = (events) => events.filter((e) => e.kind === 'message').map((e) => JSON.parse(e.data).n);
const notes = (events) => events.filter((e) => e.kind === 'note').map((e) => Number(/^note (\d+)$/.exec(e.data)[1]));

function assertContiguous(numbers, what) {
  numbers.forEach((n, i) => {
    if (i > 0) assert.equal(n, numbers[i - 1] + 1, `${what} are contiguous: ${numbers.join(' ')}`);
  });
}

// Opens a recorded page through a proxy, publishes the first notes, cuts the connection, publishes the rest, and restores the connection.
async function cutOffFor(t, server, { before: beforeCut, total }) {
  const proxy = await startProxy(t, server.port);
  const page = await openLive(t, proxy.origin);
  await record(page);
  for (let i = 1; i <= beforeCut; i += 1) await publish(server.origin, `note ${i}`);
  await recorded(page, 'the first notes and a sample have come', (e) => notes(e).length === beforeCut && samples(e).length > 0);

  proxy.cut();
  // A failed attempt of the browser proves that it was cut off.
  await recorded(page, 'the browser notices the cut', (e) => e.some((x) => x.kind === 'error'));
  await until('the browser has tried to connect and failed', () => proxy.refused > 0);
  for (let i = beforeCut + 1; i <= total; i += 1) await publish(server.origin, `note ${i}`);
  proxy.mend();
  return page;
}

/* Tests */

test('the page goes live, its numbers move, its chart fills', TEST, async (t) => {
  const server = await startServer(t);
  const page = await openLive(t, server.origin);
  await numbersMove(page);
  await until('the chart has points', async () => (await numbersOf(page)).points >= 3);
  const cards = await page.evaluate(() => ['cpu', 'memory', 'received', 'sent'].map((id) => document.getElementById(id).textContent));
  assert.match(cards[0], /^\d+\.\d %$/);
  assert.match(cards[1], /^[\d.]+ [KMGT]iB$/);
  assert.match(cards[2], /^[\d.]+ ([KMGT]i)?B\/s$/);
  assert.match(cards[3], /^[\d.]+ ([KMGT]i)?B\/s$/);
  assert.deepEqual((await logOf(page)).map((line) => line.kind), ['connected']);
  await shoot(page, 'live-light');

  const phone = await openLive(t, server.origin, { viewport: { width: 360, height: 740 }, colorScheme: 'dark' });
  const points = await until('a page opened later has the history at once', async () => (await numbersOf(phone)).points);
  assert.ok(points >= 3, `only ${points} points`);
  const width = await phone.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 360, `the page is ${width} px wide on a screen of 360`);
  await shoot(phone, 'phone-dark');
  assert.deepEqual([...page.faults, ...phone.faults], []);
});

test('a note posted through the form shows as plain text', TEST, async (t) => {
  const server = await startServer(t);
  const page = await openLive(t, server.origin);
  const text = 'first "line"\r\n<b>second</b> & \'third\'\r\n\r\n  data: 😀 🇩🇪\r\nid: 7';
  await page.fill('#note-text', text);
  await page.click('#note-form button[type=submit]');
  const shown = text.replaceAll('\r\n', '\n');
  await noteShows(page, shown);
  assert.equal(await page.$$eval('#notes b', (found) => found.length), 0);
  await until('the form says that it is posted', async () => (await page.getAttribute('#note-result', 'data-result')) === 'ok');
  assert.equal(await page.inputValue('#note-text'), '');

  await page.fill('#note-text', 'x'.repeat(MAX_NOTE + 1));
  await page.click('#note-form button[type=submit]');
  await until('the form shows why a note was refused', async () => (await page.getAttribute('#note-result', 'data-result')) === 'error');
  assert.match(await page.textContent('#note-result'), /\(413\): \S+/);
  assert.deepEqual(await notesOf(page), [shown]);
  assert.deepEqual(page.faults, []);
});

test('a note posted from outside shows on every open page', TEST, async (t) => {
  const server = await startServer(t);
  const pages = await Promise.all([openLive(t, server.origin), openLive(t, server.origin)]);
  const answer = await fetch(`${server.origin}/publish`, { method: 'POST', body: 'one\r\ntwo\rthree\nfour 😀' });
  assert.ok(answer.status === 200 || answer.status === 202, `the status was ${answer.status}`);
  await answer.json();
  for (const page of pages) await noteShows(page, 'one\ntwo\nthree\nfour 😀');
});

test('the log shows a killed and restarted server as lost, reconnected and a gap', TEST, async (t) => {
  const server = await startServer(t);
  const page = await openLive(t, server.origin);
  await numbersMove(page);
  await server.kill('SIGKILL');
  await stateIs(page, 'reconnecting');
  await until('the log tells the loss', async () => (await logOf(page, 'lost')).length === 1);

  await startServer(t, { port: server.port });
  await stateIs(page, 'live');
  await until('the log tells the gap', async () => (await logOf(page, 'gap')).length > 0);
  const lines = await logOf(page);
  assert.deepEqual(lines.map((line) => line.kind), ['connected', 'lost', 'reconnected', 'gap']);
  assert.equal(lines[3].reason, 'restarted');
  await numbersMove(page);
  await shoot(page, 'restarted');
  assert.deepEqual(page.faults, []);
});

test('a client that was cut off gets exactly what it missed', TEST, async (t) => {
  const server = await startServer(t);
  const total = 30;
  const page = await cutOffFor(t, server, { before: 5, total });
  await recorded(page, 'every note has come', (e) => notes(e).includes(total));
  const last = samples(await recordOf(page)).at(-1);
  const events = await recorded(page, 'samples go on', (e) => samples(e).at(-1) > last);

  assert.deepEqual(notes(events), Array.from({ length: total }, (_, i) => i + 1));
  assertContiguous(samples(events), 'the samples');
  assert.deepEqual(events.filter((e) => e.kind === 'gap'), []);
  assert.equal(new Set(events.filter((e) => e.id).map((e) => e.id)).size, events.filter((e) => e.id).length, 'no id came twice');
  await until('the page shows every note', async () => (await notesOf(page)).length === total);
  assert.deepEqual((await logOf(page)).map((line) => line.kind), ['connected', 'lost', 'reconnected']);
});

test('evicted history is reported as one gap before the first retained event', TEST, async (t) => {
  const server = await startServer(t, { history: 5 });
  const total = 30;
  const page = await cutOffFor(t, server, { before: 3, total });
  await recorded(page, 'the last note has come', (e) => notes(e).includes(total));
  // One more live note: delivery continues after the replay.
  await publish(server.origin, `note ${total + 1}`);
  await recorded(page, 'a live note has come', (e) => notes(e).includes(total + 1));
  const last = samples(await recordOf(page)).at(-1);
  const events = await recorded(page, 'samples go on', (e) => samples(e).at(-1) > last);

  const gaps = events.filter((e) => e.kind === 'gap');
  assert.equal(gaps.length, 1);
  const { reason, missed, oldest } = JSON.parse(gaps[0].data);
  assert.equal(reason, 'evicted');
  assert.equal(typeof missed, 'number');

  const at = events.indexOf(gaps[0]);
  const [head, tail] = [events.slice(0, at), events.slice(at + 1)];
  assert.equal(head.at(-1).kind, 'open', 'the gap is the first event of the new connection');
  assert.equal(tail[0].id, oldest, 'the gap names the event that follows it');
  assert.deepEqual(notes(head), [1, 2, 3]);
  assert.equal(notes(tail).at(-1), total + 1);
  assertContiguous(notes(tail), 'the notes after the gap');
  assertContiguous(samples(head), 'the samples before the gap');
  assertContiguous(samples(tail), 'the samples after the gap');
  const lost = notes(tail)[0] - notes(head).at(-1) - 1 + (samples(tail)[0] - samples(head).at(-1) - 1);
  assert.ok(lost > 0);
  assert.equal(missed, lost, 'the gap counts every note and sample that was lost');
  assert.deepEqual((await logOf(page, 'gap')).map((line) => line.reason), ['evicted']);
  await shoot(page, 'evicted');
});

test('when the browser gives up, the page reports it, and its button resumes without loss', TEST, async (t) => {
  const server = await startServer(t);
  const proxy = await startProxy(t, server.port);
  const page = await openLive(t, proxy.origin);
  await numbersMove(page);
  proxy.cut('unavailable');
  await stateIs(page, 'closed');
  await publish(server.origin, 'while closed, 1');
  await publish(server.origin, 'while closed, 2');
  proxy.mend();
  await shoot(page, 'closed');
  await page.click('#reconnect');
  await stateIs(page, 'live');
  await noteShows(page, 'while closed, 2');
  const { n, points } = await numbersMove(page);
  // The page began with the server's first sample, and draws one point per sample.
  assert.equal(points, n, 'no sample was lost or repeated');
  assert.deepEqual(await notesOf(page), ['while closed, 2', 'while closed, 1']);
  assert.deepEqual(await logOf(page, 'gap'), []);
  assert.equal(await page.isVisible('#reconnect'), false);
});

test('a page of another origin cannot publish', TEST, async (t) => {
  const server = await startServer(t);
  const page = await openLive(t, server.origin);
  const other = http.createServer((_, response) => response.setHeader('Content-Type', 'text/html').end('<title>other</title>'));
  other.listen(await freePort(), HOST);
  await once(other, 'listening');
  t.after(() => {
    other.closeAllConnections();
    other.close();
  });
  const otherOrigin = `http://${HOST}:${other.address().port}`;

  const foreign = await openPage(t, otherOrigin);
  const type = await foreign.evaluate(async (url) => {
    const answer = await fetch(url, { method: 'POST', mode: 'no-cors', headers: { 'Content-Type': 'text/plain' }, body: 'foreign' });
    return answer.type;
  }, `${server.origin}/publish`);
  assert.equal(type, 'opaque', 'the request went out and was answered');

  const { status, text } = await post(server.origin, 'foreign, by hand', { Origin: otherOrigin });
  assert.equal(status, 403);
  assert.notEqual(text.trim(), '');

  // Events arrive in order, so once this note shows, no earlier one can follow.
  await publish(server.origin, 'later');
  await noteShows(page, 'later');
  assert.deepEqual(await notesOf(page), ['later']);
});

test('bad notes are refused with a reason', TEST, async (t) => {
  const server = await startServer(t);
  const refused = async (body) => {
    const { status, text } = await post(server.origin, body);
    assert.ok(status >= 400 && status < 500, `the status was ${status}`);
    assert.match(text, /\w+ \w+/, 'the text says why');
    return status;
  };
  await refused('');
  await refused(Buffer.from([0x68, 0x69, 0xff, 0xfe]));
  assert.equal(await refused('x'.repeat(MAX_NOTE + 1)), 413);

  const page = await openLive(t, server.origin);
  await publish(server.origin, 'x'.repeat(MAX_NOTE));
  await noteShows(page, 'x'.repeat(MAX_NOTE));
  assert.equal((await notesOf(page)).length, 1, 'no refused note shows');
});

test('if the port is taken, the process exits with a message that names the address', TEST, async (t) => {
  const server = await startServer(t);
  const second = launch(quickstart, server.port);
  t.after(() => second.child.kill('SIGKILL'));
  const { code } = await within('the second process ends', second.closed);
  assert.equal(typeof code, 'number', 'it ended by itself');
  assert.notEqual(code, 0);
  assert.ok(second.output.includes(`${HOST}:${server.port}`), `its output: ${second.output}`);
});

test('SIGINT ends the process in time while two pages are open', TEST, async (t) => {
  const server = await startServer(t);
  const pages = await Promise.all([openLive(t, server.origin), openLive(t, server.origin)]);
  for (const page of pages) await numbersMove(page);
  const exit = await within('the process ends', server.kill('SIGINT'), SHUTDOWN_BOUND_MS);
  assert.deepEqual(exit, { code: 0, signal: null }, server.output);
  for (const page of pages) await stateIs(page, 'reconnecting');
});
