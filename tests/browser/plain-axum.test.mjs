// The example plain_axum in a real browser; support.mjs lists the environment variables.
//
//     cargo build --release --examples --all-features
//     cd tests/browser && npm ci && node --test

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { TEST, endsOnCtrlC, example, get, openLive, shoot, startServer, stateIs, until } from './support.mjs';

const plainAxum = example('plain_axum');
const first = { enough: (text) => text.includes('data: ') };

const open = async (origin) => Number(await (await fetch(`${origin}/open`)).text());
const states = (page) => page.$$eval('#streams .pill', (pills) => pills.map((pill) => pill.dataset.state));
const tellsStates = (page, expected) => until(`the streams are ${expected}`, async () => String(await states(page)) === String(expected));

test('plain_axum: streams have the right headers, and only listed origins may read them', TEST, async (t) => {
  const { origin } = await startServer(t, plainAxum, { settings: { ORIGINS: 'https://app.example' } });
  const own = await get(`${origin}/events`, first);
  assert.equal(own.status, 200);
  assert.equal(own.headers['content-type'], 'text/event-stream');
  for (const directive of ['no-cache', 'no-store', 'no-transform']) assert.ok(own.headers['cache-control'].includes(directive), directive);
  assert.equal(own.headers['x-accel-buffering'], 'no');
  assert.equal(own.headers['access-control-allow-origin'], undefined);
  assert.match(own.text, /^data: 1\n\n$/m);

  const listed = await get(`${origin}/events`, { headers: { origin: 'https://app.example' }, ...first });
  assert.equal(listed.status, 200);
  assert.equal(listed.headers['access-control-allow-origin'], 'https://app.example');
  assert.equal(listed.headers['access-control-allow-credentials'], 'true');

  const other = await get(`${origin}/events`, { headers: { origin: 'https://other.example' }, ...first });
  assert.equal(other.status, 403);
  assert.equal(other.headers['access-control-allow-origin'], undefined);
  await until('all have gone', async () => (await open(origin)) === 0);
});

test('plain_axum: a stream over the limit waits until another one ends', TEST, async (t) => {
  const { origin } = await startServer(t, plainAxum);
  const page = await openLive(t, origin);
  for (let n = 0; n < 3; n += 1) {
    await tellsStates(page, Array(n + 1).fill('live'));
    await page.click('#more');
  }
  await tellsStates(page, ['live', 'live', 'live', 'reconnecting']);
  assert.equal(await open(origin), 3);
  assert.match((await get(`${origin}/events`)).text, /^retry: \d+$/m);
  await until('the page knows', async () => (await page.textContent('#open')) === '3');
  await shoot(page, 'plain-axum');
  await page.click('#streams > li[data-stream="2"] button');
  await tellsStates(page, ['live', 'live', 'live']);
  assert.deepEqual(page.faults, []);
});

test('plain_axum: a stream ends at its time limit after a whole event, and the browser reconnects', TEST, async (t) => {
  const { origin } = await startServer(t, plainAxum, { settings: { LIFETIME: '2' } });
  const { text } = await get(`${origin}/events`);
  assert.ok(text.includes('data: 1\n\n') && !text.includes('data: 9\n\n'), text);
  assert.ok(text.endsWith('\n'), text);
  const page = await openLive(t, origin, { viewport: { width: 360, height: 740 }, colorScheme: 'dark' });
  await stateIs(page, 'reconnecting');
  await stateIs(page, 'live');
  await shoot(page, 'plain-axum-phone-dark');
});

test('plain_axum: SIGINT ends the process in time while streams are open', TEST, async (t) => {
  const server = await startServer(t, plainAxum);
  const page = await openLive(t, server.origin);
  const reading = get(`${server.origin}/events`);
  await until('both are open', async () => (await open(server.origin)) === 2);
  await endsOnCtrlC(server);
  assert.match((await reading).text, /^(:?\n|retry: \d+\n|data: \d+\n)+$/, 'whole events, and when to come back');
  await stateIs(page, 'reconnecting');
});
