// The example format in a real browser; support.mjs lists the environment variables.
//
//     cargo build --release --examples --all-features
//     cd tests/browser && npm ci && node --test

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { TEST, endsOnCtrlC, example, get, openPage, shoot, startProxy, startServer, stateIs, until } from './support.mjs';

const format = example('format');
const QUICK = { settings: { STEP: '50' } };

const WIRE = `:
: a comment: every client skips it
retry: 3000
data: Data alone is an event. It has no name, so onmessage gets it.

event: greeting
data: This one has a name, and onmessage does not get it.

id: 4
data: A client that is cut off now reconnects with Last-Event-ID: 4

data: No id: the last one stays.

id: 6
data: Several lines of data
data: arrive
data: as one text.

event: price
id: 7
data: {"price":12.05,"symbol":"ACME"}

: no data is no event; empty data is one
event: nothing
data: 

id: 9
data: What a user writes stays data:
data: 
data: event: forged
data: data: nothing
data: 
data: 

id: 10
data: The next event asks the page to close the stream.

event: close
id: 11
data: 

`;

const EVENTS = [
  ['message', '', 'Data alone is an event. It has no name, so onmessage gets it.'],
  ['greeting', '', 'This one has a name, and onmessage does not get it.'],
  ['message', '4', 'A client that is cut off now reconnects with Last-Event-ID: 4'],
  ['message', '4', 'No id: the last one stays.'],
  ['message', '6', 'Several lines of data\narrive\nas one text.'],
  ['price', '7', '{"price":12.05,"symbol":"ACME"}'],
  ['nothing', '7', ''],
  ['message', '9', 'What a user writes stays data:\n\nevent: forged\ndata: nothing\n\n'],
  ['message', '10', 'The next event asks the page to close the stream.'],
  ['close', '11', ''],
];

const eventsOf = (page) => page.$$eval('#events > li', (items) => items.map((item) => [
  item.dataset.type, item.dataset.id, item.children[1].textContent,
]));
const rawOf = (page) => page.$$eval('#raw > span', (lines) => lines.map((line) => `${line.textContent}\n`).join(''));
const departures = ({ output }) => [...output.matchAll(/^format: a client has left after (\d+) events$/gm)].map(([, events]) => Number(events));

async function assertWholeTour(page) {
  await stateIs(page, 'finished');
  await until('fetch has read all', async () => (await rawOf(page)) === WIRE);
  assert.deepEqual(await eventsOf(page), EVENTS);
  assert.equal(await page.textContent('#comments'), '3');
  assert.equal(await page.textContent('#retry'), '3 s');
  assert.equal(await page.textContent('#last-id'), '11');
  assert.equal(await page.evaluate(() => source.readyState), 2, 'the page has closed its stream');
  assert.deepEqual(page.faults, []);
}

test('format: the bytes on the wire, and the events that a page receives', TEST, async (t) => {
  const server = await startServer(t, format, QUICK);
  const page = await openPage(t, server.origin);
  await assertWholeTour(page);
  assert.equal(await page.textContent('#cookie'), 'format-tour=taken');
  await shoot(page, 'format');
  await until('the log says that both have left', () => departures(server).length === 2);
  assert.deepEqual(departures(server), [11, 11]);
});

test('format: both origins may read, and no third', TEST, async (t) => {
  const server = await startServer(t, format, QUICK);
  const here = `http://localhost:${server.port}`;
  for (const origin of [server.origin, here]) {
    const { status, headers } = await get(`${server.origin}/events`, { headers: { origin }, enough: () => true });
    assert.equal(status, 200);
    // The page's own origin needs no permission.
    if (origin !== server.origin) assert.equal(headers['access-control-allow-origin'], origin);
    assert.match(headers['set-cookie'][0], /^format-tour=taken/);
  }
  const other = await get(`${server.origin}/events`, { headers: { origin: `http://127.0.0.2:${server.port}` } });
  assert.equal(other.status, 403);
  assert.equal(other.headers['access-control-allow-origin'], undefined);

  const page = await openPage(t, here, { viewport: { width: 360, height: 740 }, colorScheme: 'dark' });
  await stateIs(page, 'finished');
  await page.context().clearCookies();
  await page.selectOption('#from', server.origin);
  await assertWholeTour(page);
  assert.equal(new URL(await page.evaluate(() => source.url)).origin, server.origin);
  assert.equal(await page.textContent('#cookie'), '–', 'it is the cookie of another site');
  await shoot(page, 'format-phone-dark');
});

test('format: a client that is cut off resumes after its last id, and gets a 204 at the end', TEST, async (t) => {
  const server = await startServer(t, format, { settings: { STEP: '500' } });
  const proxy = await startProxy(t, server.port);
  const page = await openPage(t, proxy.origin);
  await until('an id has come', async () => (await page.textContent('#last-id')) === '4');
  proxy.cut();
  proxy.mend();
  await stateIs(page, 'finished');
  // However many events arrived before the cut, the page resumes after the last id among them.
  const events = await eventsOf(page);
  const comesBack = (after) => [...EVENTS.slice(0, after), ...EVENTS.slice(EVENTS[after - 1][1] - 1)];
  const possible = [3, 4, 5, 6, 7, 8, 9].map((after) => JSON.stringify(comesBack(after)));
  assert.ok(possible.includes(JSON.stringify(events)), JSON.stringify(events));
  await until('the log says who has left early', () => departures(server).some((count) => count < 11));

  const rest = await get(`${server.origin}/events`, { headers: { 'last-event-id': '10' } });
  assert.equal(rest.text, ':\nevent: close\nid: 11\ndata: \n\n');
  assert.equal((await get(`${server.origin}/events`, { headers: { 'last-event-id': '11' } })).status, 204);
  assert.equal((await get(`${server.origin}/events`, { headers: { 'last-event-id': '12' } })).status, 204);
});

test('format: SIGINT ends the process in time while a page is open', TEST, async (t) => {
  const server = await startServer(t, format);
  const page = await openPage(t, server.origin);
  await stateIs(page, 'live');
  await endsOnCtrlC(server);
});
