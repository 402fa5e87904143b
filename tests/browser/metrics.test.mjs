// The example metrics in a real browser; support.mjs lists the environment variables.
//
//     cargo build --release --examples --all-features
//     cd tests/browser && npm ci && node --test

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { TEST, endsOnCtrlC, example, get, openLive, shoot, startServer, until } from './support.mjs';

const metrics = example('metrics');

// Parses the text format: the value of each sample by its name and labels. Each family needs a type before its samples.
async function scrape(origin) {
  const { status, headers, text } = await get(`${origin}/metrics`);
  assert.equal(status, 200);
  assert.match(headers['content-type'], /^text\/plain; version=0\.0\.4/);
  const values = new Map();
  const types = new Map();
  for (const line of text.split('\n').filter(Boolean)) {
    const type = line.match(/^# TYPE (\w+) (\w+)$/);
    if (type) types.set(type[1], type[2]);
    if (line.startsWith('#')) continue;
    const [, name, labels = '', value] = line.match(/^(\w+)(\{(?:\w+="[^"]*",?)+\})? (\S+)$/);
    assert.ok(types.has(name), `a type before ${line}`);
    values.set(name + labels, Number(value));
  }
  return { values, types };
}

const HUB = '{hub="numbers"}';

async function reports(origin, what, condition) {
  return until(`the figures show ${what}`, async () => {
    const { values, types } = await scrape(origin);
    return condition(values) && { values, types };
  });
}

test('metrics: the channel\'s figures are in the Prometheus text format', TEST, async (t) => {
  const server = await startServer(t, metrics, { settings: { RATE: '50', HISTORY: '20' } });
  const page = await openLive(t, server.origin);
  const { values, types } = await reports(server.origin, 'a reader', (values) => values.get(`axum_sse_delivered_total${HUB}`) > 0);
  assert.equal(types.get('axum_sse_subscribers'), 'gauge');
  assert.equal(types.get('axum_sse_delivered_total'), 'counter');
  assert.equal(values.get(`axum_sse_subscribers${HUB}`), 1);
  assert.equal(values.get(`axum_sse_fresh_total${HUB}`), 1);
  assert.equal(values.get('streams_open'), 1);
  const published = `axum_sse_published_total${HUB}`;
  await reports(server.origin, 'that it goes on', (now) => now.get(published) > values.get(published));

  await openLive(t, server.origin);
  await reports(server.origin, 'two readers', (now) => now.get(`axum_sse_subscribers${HUB}`) === 2 && now.get('streams_open') === 2);

  // The page pauses until its last event has been evicted.
  await until('the page has an id', () => page.evaluate(() => lastId !== ''));
  await page.click('#pause');
  const before = (await scrape(server.origin)).values.get(published);
  await reports(server.origin, 'more than it remembers', (now) => now.get(published) > before + 40);
  await page.click('#pause');
  const gaps = (now) => [...now].find(([name]) => /^axum_sse_gaps_total\{.*reason="evicted"/.test(name))?.[1];
  await reports(server.origin, 'the gap', (now) => gaps(now) === 1);
  await until('the page says so too', async () => (await page.$$('#log > li[data-kind="gap"]')).length === 1);
  await until('the page shows them', async () => (await page.textContent('#metrics')).includes(published));
  await shoot(page, 'metrics');
  assert.deepEqual(page.faults, []);
  await endsOnCtrlC(server);
});
