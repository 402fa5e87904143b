// The example progress in a real browser; support.mjs lists the environment variables.
//
//     cargo build --release --examples --all-features
//     cd tests/browser && npm ci && node --test

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  TEST, cutOff, endsOnCtrlC, example, get, openPage, shoot, startProxy, startServer, stateIs, until, within,
} from './support.mjs';

const progress = example('progress');
const RATE = (steps) => ({ settings: { RATE: String(steps) } });
const PHONE = { viewport: { width: 360, height: 740 }, colorScheme: 'dark' };

const post = (origin, body, type = 'application/json') =>
  fetch(`${origin}/tasks`, { method: 'POST', headers: { 'Content-Type': type }, body });
const bar = (page) => page.$eval('#bar', (element) => ({ done: element.value, of: element.max }));
const idIn = (page) => new URL(page.url()).hash.slice(1);
const events = async (page) => Number(await page.textContent('#events'));

const isFollowed = (page) => until('the task is followed', async () => {
  const state = await page.getAttribute('#state', 'data-state');
  return state === 'live' || state === 'finished';
});

async function start(page, steps) {
  await page.fill('#steps', String(steps));
  await page.click('#order button');
  await isFollowed(page);
}

async function reaches(page, done) {
  await until(`the bar is at ${done}`, async () => (await bar(page)).done >= done);
}

test('progress: after a reload in the middle the bar is right, and nothing is started again', TEST, async (t) => {
  const server = await startServer(t, progress, RATE(20));
  const page = await openPage(t, server.origin);
  const posts = [];
  page.context().on('request', (request) => request.method() === 'POST' && posts.push(request.url()));
  await stateIs(page, 'idle');
  await start(page, 100);
  await reaches(page, 30);
  await page.reload();
  await isFollowed(page);
  await until('the bar is back', async () => (await bar(page)).of === 100);
  assert.ok((await bar(page)).done >= 30);
  const other = await openPage(t, page.url(), PHONE);
  await reaches(other, 31);
  await shoot(other, 'progress-phone-dark');
  for (const { faults } of [page, other]) assert.deepEqual(faults, []);
  for (const follower of [page, other]) {
    await stateIs(follower, 'finished');
    assert.deepEqual(await bar(follower), { done: 100, of: 100 });
    // Pages do not receive the earlier steps.
    assert.ok((await events(follower)) < 75, `${await events(follower)} events`);
  }
  await shoot(page, 'progress-finished');
  assert.deepEqual(posts, [`${server.origin}/tasks`], 'one task was started');
});

test('progress: the end is final, for pages that close the stream and for those that do not', TEST, async (t) => {
  const server = await startServer(t, progress, RATE(100));
  const page = await openPage(t, server.origin);
  await start(page, 5);
  await stateIs(page, 'finished');
  assert.equal(await page.evaluate(() => source.readyState), 2);

  // This EventSource ignores the end event, so it reconnects once.
  const opened = await within('the browser gives up', page.evaluate(() => new Promise((resolve) => {
    const beside = new EventSource(source.url);
    let opened = 0;
    beside.onopen = () => { opened += 1; };
    beside.onerror = () => beside.readyState === EventSource.CLOSED && resolve(opened);
  })));
  assert.equal(opened, 1);

  await page.reload();
  await stateIs(page, 'finished');
  assert.deepEqual([await bar(page), await events(page)], [{ done: 5, of: 5 }, 1]);
  const { status, text } = await get(`${server.origin}/tasks/${idIn(page)}`);
  assert.equal(status, 200);
  assert.match(text, /^event: finished\nid: \S+\ndata: \{"of":5\}\n\n$/m);
  const [, last] = text.match(/^id: (\S+)$/m);
  assert.equal((await get(`${server.origin}/tasks/${idIn(page)}`, { headers: { 'last-event-id': last } })).status, 204);
});

test('progress: a page that was cut off continues with the newest step', TEST, async (t) => {
  const server = await startServer(t, progress, RATE(20));
  const proxy = await startProxy(t, server.port);
  const page = await openPage(t, proxy.origin);
  await start(page, 100);
  await reaches(page, 5);
  await cutOff(page, proxy);
  const before = await bar(page);
  await until('the task has continued', async () => {
    const { text } = await get(`${server.origin}/tasks/${idIn(page)}`, { enough: (text) => text.includes('data: {') });
    return Number(text.match(/"(?:done|of)":(\d+)/)[1]) > before.done + 10;
  });
  proxy.mend();
  await reaches(page, before.done + 10);
  await stateIs(page, 'finished');
  assert.deepEqual(await bar(page), { done: 100, of: 100 });
  assert.ok((await events(page)) < 95, `${await events(page)} events`);
  assert.deepEqual(page.faults, []);
});

test('progress: bad input and unknown tasks are refused', TEST, async (t) => {
  const { origin } = await startServer(t, progress);
  assert.equal((await post(origin, '0')).status, 422);
  assert.equal((await post(origin, '70000')).status, 422);
  assert.equal((await post(origin, '1', 'text/plain')).status, 415);
  const unknown = await get(`${origin}/tasks/1`);
  assert.deepEqual([unknown.status, unknown.text], [404, 'there is no such task']);
  const page = await openPage(t, `${origin}/#1`);
  await stateIs(page, 'closed');
  await page.fill('#steps', '0');
  await page.click('#order button');
  await until('the page says why', async () => /Not started \(422\)/.test(await page.textContent('#result')));
});

test('progress: a task over the limit is refused', TEST, async (t) => {
  const { origin } = await startServer(t, progress);
  const ids = new Set();
  for (let n = 0; n < 8; n += 1) {
    const response = await post(origin, '65535');
    assert.equal(response.status, 202);
    ids.add(await response.text());
  }
  assert.equal(ids.size, 8);
  for (const id of ids) assert.match(id, /^[0-9a-f]{16}$/);
  assert.equal((await post(origin, '1')).status, 503);
  const page = await openPage(t, origin);
  await page.click('#order button');
  await until('the page says why', async () => /Not started \(503\): too many/.test(await page.textContent('#result')));
});

test('progress: finished tasks do not count towards the limit', TEST, async (t) => {
  const { origin } = await startServer(t, progress, RATE(100));
  for (let n = 0; n < 20; n += 1) {
    await until('a task is started', async () => (await post(origin, '1')).status === 202);
  }
});

test('progress: SIGINT ends the process in time while a task is followed', TEST, async (t) => {
  const server = await startServer(t, progress);
  const page = await openPage(t, server.origin);
  await start(page, 1000);
  await endsOnCtrlC(server);
});
