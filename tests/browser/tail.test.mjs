// The example tail in a real browser; support.mjs lists the environment variables.
//
//     cargo build --release --examples --all-features
//     cd tests/browser && npm ci && node --test

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  TEST, cutOff, endsOnCtrlC, example, get, openLive, openPage, shoot, startProxy, startServer, stateIs, until,
} from './support.mjs';

const tail = example('tail');

async function start(t, settings = {}) {
  const server = await startServer(t, tail, { settings, stdin: 'pipe' });
  server.print = (...lines) => server.child.stdin.write(lines.map((line) => `${line}\n`).join(''));
  return server;
}

const numbered = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => `line ${from + n}`);
const shown = (page) => page.$$eval('#lines > li', (items) => items.map(
  (item) => (item.dataset.kind === 'gap' ? `gap: ${item.textContent}` : item.textContent),
));
const shows = (page, line) => until(`${JSON.stringify(line)} shows`, async () => (await shown(page)).includes(line));

test('tail: lines show as they are printed, and also on pages opened later', TEST, async (t) => {
  const server = await start(t);
  const page = await openLive(t, server.origin);
  const first = 'Nov 21 14:32:48 host app[7]: <b>not bold</b> & "quoted"';
  const odd = [first, '', '  data: two  spaces', 'a nul \0, a bell \x07, 😀', 'x'.repeat(16_000)];
  server.print(...odd, 'last');
  await shows(page, 'last');
  assert.deepEqual(await shown(page), [...odd, 'last']);
  server.child.stdin.write(Buffer.from('no \xff text\r\nhalf a ', 'latin1'));
  server.child.stdin.write('line\n');
  await shows(page, 'half a line');
  assert.equal((await shown(page)).at(-2), 'no \ufffd text');

  const late = await openLive(t, server.origin, { viewport: { width: 360, height: 740 }, colorScheme: 'dark' });
  await shows(late, 'half a line');
  assert.deepEqual(await shown(late), await shown(page));
  await shoot(late, 'tail-phone-dark');

  await page.fill('#filter', 'quoted');
  assert.deepEqual(await page.$$eval('#lines > li:not([hidden])', (items) => items.map((item) => item.textContent)), [first]);
  assert.equal(await page.textContent('#count'), '8');
  for (const { faults } of [page, late]) assert.deepEqual(faults, []);
});

test('tail: a page that was away receives what it missed, or a gap', TEST, async (t) => {
  const server = await start(t, { HISTORY: '10' });
  const proxy = await startProxy(t, server.port);
  const page = await openLive(t, proxy.origin);
  server.print(...numbered(1, 5));
  await shows(page, 'line 5');

  await cutOff(page, proxy);
  server.print(...numbered(6, 13));
  proxy.mend();
  await shows(page, 'line 13');
  assert.deepEqual(await shown(page), numbered(1, 13));

  await cutOff(page, proxy);
  server.print(...numbered(14, 40));
  // A separate reader shows when the server has read all lines.
  await get(`${server.origin}/events`, { enough: (text) => text.includes('"line 40"') });
  proxy.mend();
  await shows(page, 'line 40');
  const gap = 'gap: 17 lines are missing here: the server no longer keeps all that this page missed';
  assert.deepEqual(await shown(page), [...numbered(1, 13), gap, ...numbered(31, 40)]);
  await shoot(page, 'tail-gap');
});

test('tail: every page shows the end of the input, and the lines can still be read', TEST, async (t) => {
  const server = await start(t);
  const page = await openLive(t, server.origin);
  server.print(...numbered(1, 3));
  server.child.stdin.end('no line break at the end');
  await stateIs(page, 'finished');
  const all = [...numbered(1, 3), 'no line break at the end', 'The input has ended'];
  await until('all lines show', async () => (await shown(page)).length === all.length);
  assert.deepEqual(await shown(page), all);
  await until('the terminal says so too', () => /^tail: the input has ended/m.test(server.output));

  const late = await openPage(t, server.origin);
  await stateIs(late, 'finished');
  await until('all lines show', async () => (await shown(late)).length === all.length);

  // A client that does not close the stream gets a 204.
  const { text } = await get(`${server.origin}/events`);
  const last = text.match(/^event: end\nid: (\S+)$/m)[1];
  assert.equal((await get(`${server.origin}/events`, { headers: { 'last-event-id': last } })).status, 204);
  await endsOnCtrlC(server);
});

test('tail: SIGINT ends the process in time while it waits for a line', TEST, async (t) => {
  const server = await start(t);
  await openLive(t, server.origin);
  await endsOnCtrlC(server);
});

test('tail: a page on an unlisted host name reads nothing, and one on a listed name reads', TEST, async (t) => {
  const server = await start(t, { HOSTS: 'listed.example, also.example' });
  server.print('secret');
  const enough = (text) => text.includes('secret');
  const ask = (host, path) => get(`${server.origin}${path}`, { headers: { Host: `${host}:${server.port}` }, enough });
  for (const path of ['/events', '/']) {
    const { status, text } = await ask('attacker.example', path);
    assert.equal(status, 421);
    assert.ok(!enough(text));
  }
  for (const host of ['listed.example', 'also.example', 'localhost', '127.0.0.1', '[::1]']) {
    const { status, text } = await ask(host, '/events');
    assert.equal(status, 200, host);
    assert.ok(enough(text), host);
  }
});
