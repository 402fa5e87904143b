// The examples rooms, seats and answer in a real browser; support.mjs lists the environment variables.
//
//     cargo build --release --examples --all-features
//     cd tests/browser && npm ci && node --test

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  HOST, SHUTDOWN_BOUND_MS, TEST, cutOff, example, launch, openLive, openPage, shoot, startProxy, startServer, stateIs, until, within,
} from './support.mjs';

const [rooms, seatMap, answer] = ['rooms', 'seats', 'answer'].map((name) => example(name));
const PHONE = { viewport: { width: 360, height: 740 }, colorScheme: 'dark' };

/* All three examples */

async function send(origin, method, path, body, headers = {}) {
  const response = await fetch(`${origin}/${path}`, {
    method,
    headers: { 'Content-Type': 'application/json', ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return { status: response.status, text: await response.text() };
}

async function sendOk(...request) {
  const { status, text } = await send(...request);
  assert.equal(status, 200, text);
  return JSON.parse(text);
}

async function refused(status, ...request) {
  const given = await send(...request);
  assert.equal(given.status, status, `${JSON.stringify(request)}: ${given.text}`);
  assert.match(given.text, /\w+ \w+/, 'the text says why');
}

async function logOf(page, kind) {
  const lines = await page.$$eval('#log > li', (items) => items.map((item) => ({ ...item.dataset, text: item.textContent })));
  // The page shows the newest first.
  return lines.reverse().filter((line) => kind === undefined || line.kind === kind);
}

const shownNumber = async (page, id) => Number(await page.textContent(`#${id}`));

async function assertFits(page) {
  const { width } = PHONE.viewport;
  const found = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(found <= width, `the page is ${found} px wide on a screen of ${width}`);
}

for (const [name, binary] of Object.entries({ rooms, seats: seatMap, answer })) {
  test(`${name}: if the port is taken, the process exits with a message that names the address`, TEST, async (t) => {
    const server = await startServer(t, binary);
    const second = launch(binary, server.port);
    t.after(() => second.child.kill('SIGKILL'));
    const { code } = await within('the second process ends', second.closed);
    assert.equal(typeof code, 'number', 'it ended by itself');
    assert.notEqual(code, 0);
    assert.ok(second.output.includes(name) && second.output.includes(`${HOST}:${server.port}`), `its output: ${second.output}`);
  });

  test(`${name}: SIGINT ends the process in time while a page is open`, TEST, async (t) => {
    const server = await startServer(t, binary);
    const page = await openPage(t, server.origin);
    if (name === 'answer') await page.click('#submit');
    await stateIs(page, 'live');
    const exit = await within('the process ends', server.kill('SIGINT'), SHUTDOWN_BOUND_MS);
    assert.deepEqual(exit, { code: 0, signal: null }, server.output);
    await stateIs(page, 'reconnecting');
  });
}

/* rooms */

const openAs = (t, origin, name, names, options = {}) =>
  openLive(t, origin, { session: { name, rooms: JSON.stringify(names) }, ...options });

const say = (origin, room, text, from = 'someone') => sendOk(origin, 'POST', `rooms/${room}`, { from, text });
const whisper = (origin, to, text, from = 'someone') => sendOk(origin, 'POST', `users/${to}`, { from, text });

const messagesOf = (page) => page.$$eval('#messages > li', (items) => items.map((item) => ({
  ...item.dataset,
  text: item.querySelector('.text').textContent,
})));
const textsOf = async (page) => (await messagesOf(page)).map((message) => message.text);

async function shows(page, text) {
  await until(`the message ${JSON.stringify(text)} shows`, async () => (await textsOf(page)).includes(text));
}

async function toggle(page, room) {
  const connections = async () => (await logOf(page, 'connected')).length;
  const before = await connections();
  await page.click(`#rooms input[value="${room}"]`);
  await until('the page has connected with the other set', async () => (await connections()) > before);
  await stateIs(page, 'live');
}

// Records every event with a second EventSource for the same channels.
async function recordRooms(page) {
  await page.evaluate(() => {
    window.record = [];
    const beside = new EventSource(source.url);
    for (const kind of ['open', 'error', 'said', 'whispered', 'gap', 'checkpoint']) {
      beside.addEventListener(kind, (event) => window.record.push({ kind, data: event.data, id: event.lastEventId }));
    }
  });
  await until('the recorder is connected', () => page.evaluate(() => window.record.some((event) => event.kind === 'checkpoint')));
}

test('rooms: a message shows to everyone in the room, as plain text', TEST, async (t) => {
  const server = await startServer(t, rooms);
  const ann = await openAs(t, server.origin, 'ann', ['lobby', 'rust']);
  const bob = await openAs(t, server.origin, 'bob', ['lobby'], PHONE);
  const text = 'first "line"\n<b>second</b> & \'third\'\n\n  data: 😀 🇩🇪\nid: 7';
  await ann.selectOption('#target', 'lobby');
  await ann.fill('#text', text);
  await ann.click('#compose button');
  for (const page of [ann, bob]) await shows(page, text);
  assert.equal(await bob.$$eval('#messages b', (found) => found.length), 0);
  assert.equal(await ann.inputValue('#text'), '');

  await say(server.origin, 'rust', 'only in rust', 'carl');
  await say(server.origin, 'lobby', 'hello from outside', 'carl');
  for (const page of [ann, bob]) await shows(page, 'hello from outside');
  assert.deepEqual(await textsOf(ann), [text, 'only in rust', 'hello from outside']);
  assert.deepEqual(await textsOf(bob), [text, 'hello from outside']);

  await bob.click('#messages .who button >> nth=0');
  await bob.fill('#text', 'between the two of us');
  await bob.press('#text', 'Enter');
  for (const page of [ann, bob]) await shows(page, 'between the two of us');
  await assertFits(bob);
  await shoot(ann, 'rooms-light');
  await shoot(bob, 'rooms-phone-dark');

  const late = await openAs(t, server.origin, 'late', ['lobby']);
  await shows(late, 'hello from outside');
  assert.deepEqual(await textsOf(late), [text, 'hello from outside']);
  assert.deepEqual([...ann.faults, ...bob.faults, ...late.faults], []);
});

test('rooms: a private message reaches one name only', TEST, async (t) => {
  const server = await startServer(t, rooms);
  const [ann, bob, eve] = await Promise.all(['ann', 'bob', 'eve'].map((name) => openAs(t, server.origin, name, ['lobby'])));
  await bob.selectOption('#target', '');
  await bob.fill('#to', 'ann');
  await bob.fill('#text', 'psst');
  await bob.click('#compose button');
  for (const page of [ann, bob]) await shows(page, 'psst');
  await whisper(server.origin, 'ann', 'from outside');
  await shows(ann, 'from outside');
  // Events arrive in order, so once this message shows, no earlier one can follow.
  await say(server.origin, 'lobby', 'for all');
  for (const page of [ann, bob, eve]) await shows(page, 'for all');
  assert.deepEqual(await textsOf(ann), ['psst', 'from outside', 'for all']);
  assert.deepEqual(await textsOf(bob), ['psst', 'for all']);
  assert.deepEqual(await textsOf(eve), ['for all']);
});

test('rooms: joining a room shows its history in order, without repetition', TEST, async (t) => {
  const server = await startServer(t, rooms);
  const page = await openAs(t, server.origin, 'ann', ['lobby']);
  for (const n of [1, 2, 3]) {
    await say(server.origin, 'lobby', `lobby ${n}`);
    await say(server.origin, 'music', `music ${n}`);
  }
  await shows(page, 'lobby 3');
  await toggle(page, 'music');
  await shows(page, 'music 3');
  assert.deepEqual(await textsOf(page), ['lobby 1', 'music 1', 'lobby 2', 'music 2', 'lobby 3', 'music 3']);

  await toggle(page, 'lobby');
  await say(server.origin, 'lobby', 'lobby 4');
  await say(server.origin, 'music', 'music 4');
  await shows(page, 'music 4');
  assert.equal((await textsOf(page)).includes('lobby 4'), false, 'the room was left');
  await toggle(page, 'lobby');
  await shows(page, 'lobby 4');
  await say(server.origin, 'lobby', 'lobby 5');
  await shows(page, 'lobby 5');
  const all = [1, 2, 3, 4].flatMap((n) => [`lobby ${n}`, `music ${n}`]);
  assert.deepEqual(await textsOf(page), [...all, 'lobby 5']);
  assert.deepEqual(await logOf(page, 'gap'), []);
  assert.deepEqual(page.faults, []);
});

test('rooms: joining a room reports no gap in another room that has evicted messages', TEST, async (t) => {
  const server = await startServer(t, rooms, { settings: { HISTORY: '5' } });
  const page = await openAs(t, server.origin, 'ann', ['lobby']);
  const lobby = Array.from({ length: 20 }, (_, n) => `lobby ${n}`);
  for (const text of lobby) await say(server.origin, 'lobby', text);
  await say(server.origin, 'music', 'music');
  await shows(page, lobby.at(-1));
  await toggle(page, 'music');
  await shows(page, 'music');
  assert.deepEqual(await textsOf(page), [...lobby, 'music']);
  assert.deepEqual(await logOf(page, 'gap'), []);

  for (let n = 0; n < 20; n += 1) await say(server.origin, 'rust', `rust ${n}`);
  await toggle(page, 'rust');
  await shows(page, 'rust 19');
  assert.deepEqual((await logOf(page, 'gap')).map((line) => [line.channel, line.reason]), [['room/rust', 'evicted']]);
});

test('rooms: a page that was cut off gets exactly what it missed, on all its channels', TEST, async (t) => {
  const server = await startServer(t, rooms);
  const proxy = await startProxy(t, server.port);
  const names = ['lobby', 'rust', 'music', 'weather'];
  const page = await openAs(t, proxy.origin, 'ann', names);
  await recordRooms(page);
  const expected = [];
  const publish = async (count) => {
    for (let i = 0; i < count; i += 1) {
      const n = expected.length;
      const text = `message ${n}`;
      expected.push(text);
      if (n % 5 === 4) await whisper(server.origin, 'ann', text);
      else await say(server.origin, names[n % 5], text);
    }
  };
  await publish(10);
  await shows(page, 'message 9');
  await cutOff(page, proxy);
  await publish(50);
  proxy.mend();
  await stateIs(page, 'live');
  await publish(10);
  await shows(page, expected.at(-1));
  const events = await until('the recorder has everything', async () => {
    const found = await page.evaluate(() => window.record);
    return found.some((event) => event.data?.includes(`"${expected.at(-1)}"`)) && found;
  });
  assert.deepEqual(await textsOf(page), expected);
  const recorded = events.filter((event) => event.kind === 'said' || event.kind === 'whispered');
  assert.deepEqual(recorded.map((event) => JSON.parse(event.data).text), expected);
  assert.deepEqual(events.filter((event) => event.kind === 'gap'), []);
  assert.deepEqual((await logOf(page)).map((line) => line.kind), ['connected', 'lost', 'reconnected']);
});

test('rooms: a gap is reported only for the channel that has one', TEST, async (t) => {
  const server = await startServer(t, rooms, { settings: { HISTORY: '5' } });
  const proxy = await startProxy(t, server.port);
  const page = await openAs(t, proxy.origin, 'ann', ['lobby', 'music']);
  await say(server.origin, 'lobby', 'before');
  await shows(page, 'before');
  await cutOff(page, proxy);
  await say(server.origin, 'music', 'music 1');
  for (let n = 1; n <= 20; n += 1) await say(server.origin, 'lobby', `lobby ${n}`);
  await say(server.origin, 'music', 'music 2');
  proxy.mend();
  await shows(page, 'music 2');
  assert.deepEqual((await logOf(page, 'gap')).map((line) => [line.channel, line.reason]), [['room/lobby', 'evicted']]);
  await shoot(page, 'rooms-gap');
  const texts = await textsOf(page);
  assert.deepEqual(texts.filter((text) => text.startsWith('music')), ['music 1', 'music 2']);
  const left = texts.filter((text) => text.startsWith('lobby')).map((text) => Number(text.split(' ')[1]));
  assert.ok(left.length >= 5 && left.length < 20, `left: ${left}`);
  assert.deepEqual(left, Array.from({ length: left.length }, (_, i) => 21 - left.length + i));
});

test('rooms: after a server restart the page reports it, continues, and still joins rooms', TEST, async (t) => {
  const server = await startServer(t, rooms);
  const page = await openAs(t, server.origin, 'ann', ['lobby']);
  await say(server.origin, 'lobby', 'before');
  await shows(page, 'before');
  await server.kill('SIGKILL');
  await stateIs(page, 'reconnecting');
  const second = await startServer(t, rooms, { port: server.port });
  await say(second.origin, 'music', 'history');
  await say(second.origin, 'lobby', 'after');
  await stateIs(page, 'live');
  await shows(page, 'after');
  const gaps = await logOf(page, 'gap');
  assert.deepEqual(new Set(gaps.map((line) => line.reason)), new Set(['restarted']));
  await toggle(page, 'music');
  await shows(page, 'history');
  assert.deepEqual(await textsOf(page), ['before', 'history', 'after']);
  assert.deepEqual(page.faults, []);
});

test('rooms: bad input is refused with a reason', TEST, async (t) => {
  const { origin } = await startServer(t, rooms);
  const good = { from: 'ann', text: 'hello' };
  await refused(404, origin, 'POST', 'rooms/nowhere', good);
  await refused(422, origin, 'POST', 'rooms/lobby', { ...good, text: '  \n' });
  await refused(422, origin, 'POST', 'rooms/lobby', { ...good, text: 'x'.repeat(2001) });
  await refused(413, origin, 'POST', 'rooms/lobby', { ...good, text: 'x'.repeat(20_000) });
  await refused(422, origin, 'POST', 'rooms/lobby', { ...good, from: 'two words' });
  await refused(422, origin, 'POST', 'rooms/lobby', { ...good, from: 'x'.repeat(25) });
  await refused(422, origin, 'POST', 'rooms/lobby', { from: 'ann' });
  await refused(400, origin, 'POST', `users/${encodeURIComponent('a/b')}`, good);
  await refused(415, origin, 'POST', 'rooms/lobby', good, { 'Content-Type': 'text/plain' });
  await refused(400, origin, 'GET', 'events?name=&rooms=lobby');
  await refused(400, origin, 'GET', 'events?rooms=lobby');
  await refused(404, origin, 'GET', 'events?name=ann&rooms=lobby,nowhere');

  const page = await openAs(t, origin, 'ann', ['lobby']);
  await say(origin, 'lobby', 'x'.repeat(2000));
  await shows(page, 'x'.repeat(2000));
  assert.equal((await messagesOf(page)).length, 1, 'no refused message shows');
  await page.fill('#text', ' ');
  await page.click('#compose button');
  await until('the page shows why', async () => (await page.getAttribute('#result', 'data-result')) === 'error');
  assert.match(await page.textContent('#result'), /\(422\): .*empty/);
});

/* seats */

const RATE = (changes) => ({ RATE: String(changes) });
const stateOf = (page) => page.evaluate(() => ({ seats, id: lastId, ...counts }));
const seatOf = async (n) => `${'ABCDEFGHIJ'[Math.floor(n / 10) % 10]}${(n % 10) + 1}`;
const take = async (origin, seat, by = 'test') => sendOk(origin, 'PUT', `seats/${await seat}`, { by });

async function standsAt(page, id) {
  return until(`the page reaches ${id}`, async () => {
    const state = await stateOf(page);
    return state.id === id && state;
  });
}

// Compares the page with a new one, which starts from a snapshot.
async function assertSameAsServer(t, page, origin, id) {
  const { seats } = await standsAt(page, id);
  const fresh = await openLive(t, origin);
  const own = await standsAt(fresh, id);
  assert.equal(own.snapshots, 1);
  assert.deepEqual(seats, own.seats);
  await compared(page, 1);
}

async function compared(page, times) {
  const { equal } = await stateOf(page);
  const state = await until(`the page was compared ${times} times more`, async () => {
    const now = await stateOf(page);
    return now.equal + now.different >= equal + times && now;
  });
  assert.equal(state.different, 0);
}

test('seats: a page never differs from the server, whenever it is loaded', TEST, async (t) => {
  const server = await startServer(t, seatMap, { settings: RATE(100) });
  const page = await openLive(t, server.origin);
  for (let load = 0; load < 4; load += 1) {
    await compared(page, 2);
    const { snapshots, changes } = await stateOf(page);
    assert.equal(snapshots, 1);
    assert.ok(changes > 0);
    await page.reload();
    await stateIs(page, 'live');
  }
  assert.deepEqual(page.faults, []);
});

test('seats: a snapshot and the changes after it give the server\'s state', TEST, async (t) => {
  const server = await startServer(t, seatMap, { settings: RATE(0) });
  for (let n = 0; n < 10; n += 1) await take(server.origin, seatOf(n * 7));
  const page = await openLive(t, server.origin);
  await until('the snapshot is there', async () => (await stateOf(page)).snapshots === 1);
  assert.equal((await stateOf(page)).changes, 0);
  let id;
  for (let n = 0; n < 5; n += 1) ({ id } = await take(server.origin, seatOf(n * 7 + 1), `guest-${n}`));
  ({ id } = await sendOk(server.origin, 'DELETE', 'seats/A1', { by: 'test' }));
  const { changes, snapshots } = await standsAt(page, id);
  assert.deepEqual({ changes, snapshots }, { changes: 6, snapshots: 1 });
  await assertSameAsServer(t, page, server.origin, id);
});

test('seats: a page that was cut off catches up by changes alone, or by a gap and a snapshot', TEST, async (t) => {
  const server = await startServer(t, seatMap, { settings: { ...RATE(0), HISTORY: '10' } });
  const proxy = await startProxy(t, server.port);
  const page = await openLive(t, proxy.origin);
  await take(server.origin, 'A1');

  await cutOff(page, proxy);
  let id;
  for (let n = 10; n < 18; n += 1) ({ id } = await take(server.origin, seatOf(n)));
  proxy.mend();
  const caughtUp = await standsAt(page, id);
  assert.deepEqual([caughtUp.snapshots, caughtUp.changes], [1, 9]);
  assert.deepEqual(await logOf(page, 'gap'), []);
  await assertSameAsServer(t, page, server.origin, id);

  await cutOff(page, proxy);
  for (let n = 20; n < 60; n += 1) ({ id } = await take(server.origin, seatOf(n)));
  proxy.mend();
  const again = await standsAt(page, id);
  assert.deepEqual([again.snapshots, again.changes], [2, 9]);
  const gaps = await logOf(page, 'gap');
  assert.deepEqual(gaps.map((line) => line.reason), ['evicted']);
  await shoot(page, 'seats-evicted');
  await assertSameAsServer(t, page, server.origin, id);
  ({ id } = await take(server.origin, 'J10'));
  await assertSameAsServer(t, page, server.origin, id);
});

test('seats: cut off and back at full speed, the page is still the same as the server', TEST, async (t) => {
  const server = await startServer(t, seatMap, { settings: { ...RATE(200), HISTORY: '100' } });
  const proxy = await startProxy(t, server.port);
  const page = await openLive(t, proxy.origin);
  for (let round = 0; round < 3; round += 1) {
    await compared(page, 1);
    await cutOff(page, proxy);
    proxy.mend();
    await stateIs(page, 'live');
  }
  await compared(page, 2);
  assert.deepEqual(page.faults, []);
});

test('seats: after a restart the page has the new server\'s state', TEST, async (t) => {
  const server = await startServer(t, seatMap, { settings: RATE(0) });
  const page = await openLive(t, server.origin);
  const { id: before } = await take(server.origin, 'A1');
  await standsAt(page, before);
  await server.kill('SIGKILL');
  await stateIs(page, 'reconnecting');
  const second = await startServer(t, seatMap, { port: server.port, settings: RATE(0) });
  const { id } = await take(second.origin, 'B2');
  await stateIs(page, 'live');
  const { seats } = await standsAt(page, id);
  assert.deepEqual([seats.A1, seats.B2], [null, 'test']);
  assert.deepEqual((await logOf(page, 'gap')).map((line) => line.reason), ['restarted']);
  await assertSameAsServer(t, page, second.origin, id);
});

test('seats: pausing and resuming loses nothing', TEST, async (t) => {
  const server = await startServer(t, seatMap, { settings: RATE(0) });
  const page = await openLive(t, server.origin);
  await until('the snapshot is there', async () => (await stateOf(page)).snapshots === 1);
  await page.click('#pause');
  let id;
  for (let n = 0; n < 5; n += 1) ({ id } = await take(server.origin, seatOf(n)));
  await page.click('#pause');
  await stateIs(page, 'live');
  const { snapshots, changes } = await standsAt(page, id);
  assert.deepEqual([snapshots, changes], [1, 5]);
  await assertSameAsServer(t, page, server.origin, id);
});

test('seats: only one person can take a seat', TEST, async (t) => {
  const server = await startServer(t, seatMap, { settings: RATE(0) });
  const ann = await openLive(t, server.origin, { session: { name: 'ann' } });
  const bob = await openLive(t, server.origin, { session: { name: 'bob' }, ...PHONE });
  await ann.click('#C7');
  await until('bob sees it', async () => (await bob.getAttribute('#C7', 'data-by')) === 'ann');
  await bob.click('#C7');
  await until('bob is told why not', async () => /C7 is taken by ann/.test(await bob.textContent('#result')));
  const tries = await Promise.all(Array.from({ length: 20 }, (_, n) => send(server.origin, 'PUT', 'seats/D4', { by: `n-${n}` })));
  assert.deepEqual(tries.map((answered) => answered.status).sort(), [200, ...Array(19).fill(409)]);
  await ann.click('#C7');
  await until('the seat is free again', async () => (await bob.getAttribute('#C7', 'data-by')) === '');

  await refused(404, server.origin, 'PUT', 'seats/K1', { by: 'ann' });
  await refused(422, server.origin, 'PUT', 'seats/A1', { by: 'x'.repeat(25) });
  await refused(422, server.origin, 'PUT', 'seats/A1', {});
  await refused(415, server.origin, 'PUT', 'seats/A1', { by: 'ann' }, { 'Content-Type': 'text/plain' });
  await refused(409, server.origin, 'DELETE', 'seats/A1', { by: 'ann' });
  assert.deepEqual([...ann.faults, ...bob.faults], []);
});

test('seats: it fits screens of all sizes', TEST, async (t) => {
  const server = await startServer(t, seatMap, { settings: RATE(50) });
  const [wide, phone] = [await openLive(t, server.origin), await openLive(t, server.origin, PHONE)];
  for (const page of [wide, phone]) {
    await until('many seats are taken', async () => (await shownNumber(page, 'taken')) > 30);
    await compared(page, 1);
  }
  await wide.click('#seats button[data-by=""] >> nth=5');
  await assertFits(phone);
  await shoot(wide, 'seats-light');
  await shoot(phone, 'seats-phone-dark');
});

/* answer */

async function ask(page, prompt = 'why?') {
  await page.fill('#prompt', prompt);
  await page.click('#submit');
}

const wordsReach = (page, count) =>
  until(`${count} words are there`, async () => (await shownNumber(page, 'words')) >= count);
const textOf = (page) => page.textContent('#text');
const runOf = (page) => page.evaluate(() => saved().id);
const startedOf = async (origin) => (await (await fetch(`${origin}/started`)).json()).started;

async function cookieOf(page) {
  const cookies = await page.context().cookies();
  return cookies.map(({ name, value }) => `${name}=${value}`).join('; ');
}

// Reads a run to its end, without a browser.
async function readRun(origin, id, cookie) {
  const response = await fetch(`${origin}/answer?${new URLSearchParams({ lastEventId: id })}`, { headers: { cookie } });
  const body = await within('the run ends', response.text());
  const pieces = [...body.matchAll(/^data: (\{[^\n]*)/gm)].map((match) => JSON.parse(match[1]));
  return {
    status: response.status,
    words: pieces.filter((piece) => 'text' in piece).map((piece) => piece.text),
    end: pieces.find((piece) => 'end' in piece)?.end,
    reason: pieces.find((piece) => 'reason' in piece)?.reason,
    last: [...body.matchAll(/^id: (.*)$/gm)].at(-1)?.[1],
  };
}

// Checks the response to an id of an unknown run.
async function assertUnknown(origin, id, cookie) {
  const response = await fetch(`${origin}/answer?${new URLSearchParams({ lastEventId: id })}`, { headers: { cookie } });
  assert.equal(response.status, 200);
  const body = await within('the stream ends', response.text());
  assert.match(body, /^event: end\nid: \S+\ndata: \{"reason":"unknown"\}\n\n$/m);
  const last = /^id: (.*)$/m.exec(body)[1];
  assert.equal((await readRun(origin, last, cookie)).status, 204);
}

async function closedForGood(page) {
  await until('the browser has closed the stream', () => page.evaluate(() => source.readyState === EventSource.CLOSED));
}

// Checks that the page shows each word of the run once.
async function assertWhole(page, origin) {
  const run = await readRun(origin, await runOf(page), await cookieOf(page));
  assert.equal(run.end?.words, run.words.length, 'the run has all its words');
  assert.equal(await textOf(page), run.words.join(''));
  assert.equal(await shownNumber(page, 'words'), run.words.length);
  return run;
}

test('answer: reloads in the middle start no second run, and the text is there once', TEST, async (t) => {
  const server = await startServer(t, answer, { settings: RATE(40) });
  const page = await openPage(t, server.origin);
  await ask(page, '<b>why</b> & "how"?\u2028😀');
  await wordsReach(page, 10);
  for (const count of [30, 60]) {
    await page.reload();
    await wordsReach(page, count);
  }
  await shoot(page, 'answer-light');
  await stateIs(page, 'finished');
  const run = await assertWhole(page, server.origin);
  assert.ok(run.words.join('').includes('<b>why</b> & "how"?\u2028😀'));
  assert.equal(await page.$$eval('#text b', (found) => found.length), 0);
  assert.equal(await startedOf(server.origin), 1);
  await until('the page shows one run', async () => (await shownNumber(page, 'started')) === 1);
  assert.equal(await shownNumber(page, 'loads'), 3);
  assert.deepEqual(page.faults, []);
});

test('answer: after the last word the browser gets a 204, and no run is started', TEST, async (t) => {
  const server = await startServer(t, answer, { settings: RATE(500) });
  const page = await openPage(t, server.origin, PHONE);
  await ask(page);
  await stateIs(page, 'finished');
  await closedForGood(page);
  const run = await assertWhole(page, server.origin);
  assert.equal((await logOf(page, 'closed')).length, 1);
  assert.equal(await startedOf(server.origin), 1);
  const again = await readRun(server.origin, run.last, await cookieOf(page));
  assert.equal(again.status, 204);
  await assertFits(page);
  await shoot(page, 'answer-phone-dark');

  await page.reload();
  await stateIs(page, 'finished');
  await closedForGood(page);
  await assertWhole(page, server.origin);
  assert.equal(await startedOf(server.origin), 1);

  await ask(page, 'and again?');
  await stateIs(page, 'finished');
  await until('asking again starts another run', async () => (await startedOf(server.origin)) === 2);
  assert.match(await textOf(page), /and again\?/);
  assert.deepEqual(page.faults, []);
});

test('answer: a page that was cut off continues where it was', TEST, async (t) => {
  const server = await startServer(t, answer, { settings: RATE(40) });
  const proxy = await startProxy(t, server.port);
  const page = await openPage(t, proxy.origin);
  await ask(page);
  await wordsReach(page, 10);
  await cutOff(page, proxy);
  proxy.mend();
  await stateIs(page, 'finished');
  await assertWhole(page, server.origin);
  await closedForGood(page);
  assert.equal(await shownNumber(page, 'connections'), 2);
  assert.equal(await startedOf(server.origin), 1);
});

test('answer: the run continues without a reader', TEST, async (t) => {
  const server = await startServer(t, answer, { settings: RATE(40) });
  const page = await openPage(t, server.origin);
  await ask(page);
  await wordsReach(page, 5);
  const [id, cookie] = [await runOf(page), await cookieOf(page)];
  await page.goto('about:blank');
  const run = await readRun(server.origin, id, cookie);
  assert.equal(run.end.words, run.words.length);
  await page.goto(server.origin);
  await stateIs(page, 'finished');
  assert.equal(await textOf(page), run.words.join(''));
  assert.equal(await startedOf(server.origin), 1);
});

test('answer: the stop button ends the run for good', TEST, async (t) => {
  const server = await startServer(t, answer, { settings: RATE(20) });
  const page = await openPage(t, server.origin);
  await ask(page);
  await wordsReach(page, 10);
  const [id, cookie] = [await runOf(page), await cookieOf(page)];
  const reader = readRun(server.origin, id, cookie);
  await page.click('#stop');
  await stateIs(page, 'stopped');
  const run = await reader;
  assert.equal(run.end, undefined, 'the last word never came');
  assert.equal(run.reason, 'cancelled');
  assert.ok(run.words.length >= 10 && run.words.length < 100, `${run.words.length} words`);
  assert.equal((await readRun(server.origin, run.last, cookie)).status, 204);
  await shoot(page, 'answer-stopped');

  await page.reload();
  await closedForGood(page);
  await stateIs(page, 'stopped');
  assert.equal(await textOf(page), run.words.join(''));
  assert.equal(await startedOf(server.origin), 1);
});

test('answer: only the visitor who started a run can read it', TEST, async (t) => {
  const server = await startServer(t, answer);
  const page = await openPage(t, server.origin);
  await ask(page);
  await wordsReach(page, 5);
  const [id, cookie] = [await runOf(page), await cookieOf(page)];
  const other = await openPage(t, server.origin);
  const foreign = await cookieOf(other);
  assert.notEqual(foreign, '');
  assert.notEqual(foreign, cookie);

  const query = `answer?lastEventId=${encodeURIComponent(id)}`;
  await assertUnknown(server.origin, id, foreign);
  await refused(404, server.origin, 'DELETE', query, undefined, { cookie: foreign });
  await refused(401, server.origin, 'GET', 'answer?prompt=hello');
  await refused(400, server.origin, 'GET', 'answer', undefined, { cookie });
  await refused(400, server.origin, 'GET', `answer?prompt=${'x'.repeat(401)}`, undefined, { cookie });
  // HEAD starts no run; the counter below checks this.
  assert.equal((await send(server.origin, 'HEAD', 'answer?prompt=hello', undefined, { cookie })).status, 200);
  await assertUnknown(server.origin, 'nonsense', cookie);
  assert.equal(await startedOf(server.origin), 1);

  const before = await shownNumber(page, 'words');
  await wordsReach(page, before + 5);
});

test('answer: a run that the server does not know is not started again', TEST, async (t) => {
  const server = await startServer(t, answer);
  const page = await openPage(t, server.origin);
  await ask(page);
  await wordsReach(page, 5);
  const run = await page.evaluate(() => saved());
  await server.kill('SIGKILL');
  await stateIs(page, 'reconnecting');
  const words = await shownNumber(page, 'words');
  const second = await startServer(t, answer, { port: server.port });
  await stateIs(page, 'gone');
  await closedForGood(page);
  assert.equal(await shownNumber(page, 'words'), words, 'what had come is still there');
  await page.reload();
  await stateIs(page, 'idle');
  await page.evaluate((run) => save(run), run);
  await page.reload();
  await stateIs(page, 'gone');
  await closedForGood(page);
  assert.equal(await startedOf(second.origin), 0);
  assert.equal(await page.isEnabled('#submit'), true);
});
