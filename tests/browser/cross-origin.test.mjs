// The example cross_origin in a real browser: pages from several origins read a stream from another one. support.mjs lists the environment variables.
//
//     cargo build --release --examples --all-features
//     cd tests/browser && npm ci && node --test

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  BOUND_MS, HOST, SHUTDOWN_BOUND_MS, TEST, cutOff, example, freePort, launch, openPage, openWithPreferences, shoot, startProxy, startServer, stateIs, until, within,
} from './support.mjs';

const binary = example('cross_origin');
const COOKIE = 'cross-origin-session';

/* The servers and the pages */

// With `cut`, the pages reach the API through a proxy that can cut connections. `settings` receives the ports of the two pages.
async function start(t, { cut = false, settings = () => ({}) } = {}) {
  const ports = new Set();
  while (ports.size < 3) ports.add(await freePort());
  const [port, apiPort, otherPort] = ports;
  const proxy = cut ? await startProxy(t, apiPort) : undefined;
  const server = await startServer(t, binary, {
    port,
    settings: {
      API_PORT: String(apiPort),
      OTHER_PORT: String(otherPort),
      SESSION: '600',
      ...(cut && { API_URL: proxy.origin }),
      ...settings(port, otherPort),
    },
  });
  const counts = async () => (await fetch(`${server.origin}/counts`)).json();
  return {
    server, proxy, counts,
    apiPort,
    app: server.origin,
    api: `http://${HOST}:${apiPort}`,
    other: `http://${HOST}:${otherPort}`,
    runs: async () => (await counts()).runs,
  };
}

async function openBeside(page, url) {
  const beside = await page.context().newPage();
  beside.setDefaultTimeout(BOUND_MS);
  await beside.goto(url);
  return beside;
}

async function logIn(page, name = 'ann') {
  await page.fill('#name', name);
  await page.click('#login button');
}

async function openLoggedIn(t, url, options) {
  const page = await openPage(t, url, options);
  await closedFor(page, /401/);
  await logIn(page);
  await stateIs(page, 'live');
  return page;
}

async function say(page, text) {
  await page.fill('#text', text);
  await page.click('#compose button');
}

const textsOf = (page, list = 'messages') => page.$$eval(`#${list} .text > span`, (found) => found.map((text) => text.textContent));
const kindsOf = async (page) => (await page.$$eval('#log > li', (found) => found.map((line) => line.dataset.kind))).reverse();

async function shows(page, text, list) {
  await until(`${JSON.stringify(text)} shows`, async () => (await textsOf(page, list)).includes(text));
}

// Waits until the page reports that the stream is closed for good, with `reason`.
async function closedFor(page, reason) {
  await stateIs(page, 'closed');
  await until(`the page says ${reason}`, async () => reason.test(await page.textContent('#log > li[data-kind="closed"] > span')));
}

// A client that is not a page and therefore sends no Origin.
async function stranger(api) {
  const headers = { 'Content-Type': 'application/json' };
  const login = await fetch(`${api}/session`, { method: 'POST', headers, body: JSON.stringify({ name: 'stranger' }) });
  assert.equal(login.status, 200);
  const [cookie] = login.headers.getSetCookie()[0].split(';');
  return async (text) => {
    const { status } = await fetch(`${api}/messages`, { method: 'POST', headers: { ...headers, cookie }, body: JSON.stringify({ text }) });
    assert.equal(status, 204);
  };
}

// The status that a script on this page can read, or the name of the error.
const statusOf = (page, url, options) => page.evaluate(
  ([url, options]) => fetch(url, { credentials: 'include', ...options }).then(
    (response) => {
      response.body?.cancel();
      return response.status;
    },
    (error) => error.name,
  ),
  [url, options],
);

// Records the requests to `origin` in the browser's network stack, including preflights and responses that the page may not read.
async function watch(page, origin) {
  const session = await page.context().newCDPSession(page);
  const known = new Map();
  // The events about one request arrive in any order.
  const add = (id, facts) => known.set(id, { ...known.get(id), ...facts });
  const lower = (headers) => new Map(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
  session.on('Network.requestWillBeSent', ({ requestId, request, initiator }) => {
    add(requestId, { url: request.url, method: request.method, preflight: initiator.type === 'preflight' });
  });
  session.on('Network.requestWillBeSentExtraInfo', ({ requestId, headers }) => add(requestId, { sent: lower(headers) }));
  session.on('Network.responseReceivedExtraInfo', ({ requestId, statusCode, headers }) => {
    add(requestId, { status: statusCode, received: lower(headers) });
  });
  await session.send('Network.enable');
  // Only requests with a response.
  return () => [...known.values()].filter(({ url, sent, status }) => url?.startsWith(origin) && sent && status !== undefined);
}

/* Tests */

test('an allowed page reads with its cookie, and resumes after a cut without loss or repetition', TEST, async (t) => {
  const { app, api, proxy } = await start(t, { cut: true });
  const page = await openLoggedIn(t, app);
  assert.equal(await page.textContent('#verdict'), 'allowed');
  const cookies = await page.context().cookies(api);
  assert.deepEqual(
    cookies.map(({ name, httpOnly, sameSite }) => ({ name, httpOnly, sameSite })),
    [{ name: COOKIE, httpOnly: true, sameSite: 'Lax' }],
  );
  const text = 'first & <b>bold</b> 😀';
  await say(page, text);
  await shows(page, text);

  const publish = await stranger(api);
  const expected = [text];
  const publishMany = async (count) => {
    for (let n = 0; n < count; n += 1) {
      expected.push(`message ${expected.length}`);
      await publish(expected.at(-1));
    }
  };
  await publishMany(5);
  await shows(page, expected.at(-1));
  for (let cut = 0; cut < 2; cut += 1) {
    await cutOff(page, proxy);
    await publishMany(30);
    proxy.mend();
    await stateIs(page, 'live');
    await publishMany(5);
    await shows(page, expected.at(-1));
  }
  assert.deepEqual(await textsOf(page), expected);
  assert.deepEqual(await kindsOf(page), ['closed', 'connected', 'lost', 'reconnected', 'lost', 'reconnected']);
  await shoot(page, 'cross-origin-light');
  assert.deepEqual(page.faults, []);
});

test('a page that is not allowed is closed, learns nothing, and runs no handler', TEST, async (t) => {
  const { app, api, other, counts, runs } = await start(t);
  const page = await openLoggedIn(t, app);
  await say(page, 'before');
  await shows(page, 'before');
  const before = await counts();
  assert.equal(before.open, 1);

  // The same browser with the same cookie: cookies ignore ports, so both origins share it.
  const refused = await openBeside(page, other);
  await closedFor(refused, /may not read/);
  assert.equal(await refused.textContent('#verdict'), 'not allowed');
  assert.equal(await refused.evaluate(() => source.readyState), 2);
  const answered = await watch(refused, api);
  await refused.click('#read');
  await until('the page says so', async () => /may not read/.test(await refused.textContent('#read-result')));
  await logIn(refused, 'eve');
  await until('the page says so', async () => /may not read/.test(await refused.textContent('#session')));
  await shoot(refused, 'cross-origin-refused');

  assert.equal(await statusOf(refused, `${api}/events`), 'TypeError');
  assert.equal(await statusOf(refused, `${api}/events`, { headers: { 'Last-Event-ID': '1' } }), 'TypeError');
  // A page may send these requests without reading the response; an unreadable response has the status 0.
  for (const [path, method] of [['events', 'GET'], ['events', 'POST'], ['session', 'POST'], ['messages', 'POST']]) {
    assert.equal(await statusOf(refused, `${api}/${path}`, { mode: 'no-cors', method }), 0);
  }
  assert.equal(await statusOf(refused, `${api}/session`, { method: 'DELETE' }), 'TypeError');
  await refused.click('#connect');
  await until('it is closed once more', async () => (await kindsOf(refused)).filter((kind) => kind === 'closed').length === 2);
  const requests = await until('all is answered', () => {
    const found = answered();
    // The EventSource and its fetch, three fetches with a preflight, and five without.
    return found.length >= 10 && found;
  });
  for (const { status, received, method, url } of requests) {
    assert.equal(status, 403, `${method} ${url}`);
    assert.deepEqual([...received.keys()].filter((name) => name.startsWith('access-control')), []);
  }
  const withCookie = requests.filter(({ sent }) => sent.get('cookie')?.includes(COOKIE));
  assert.ok(withCookie.length >= 7, `the cookie came along ${withCookie.length} times`);
  assert.deepEqual(await counts(), before);

  // The session still exists, no message was posted, and the stream of the allowed page continues.
  await say(page, 'after');
  await shows(page, 'after');
  assert.deepEqual(await textsOf(page), ['before', 'after']);
  assert.equal(await runs(), before.runs);
});

test('access follows the list: with another list, the other page may read and the first may not', TEST, async (t) => {
  const { app, other, runs } = await start(t, {
    settings: (_, otherPort) => ({ ORIGINS: `https://*.app.example, HTTP://${HOST}:${otherPort}/` }),
  });
  const page = await openPage(t, app);
  await closedFor(page, /may not read/);
  assert.equal(await page.textContent('#origins'), `${other}, https://*.app.example`);
  assert.equal(await runs(), 0);
  const allowed = await openLoggedIn(t, other, { viewport: { width: 360, height: 740 }, colorScheme: 'dark' });
  await say(allowed, 'hello');
  await shows(allowed, 'hello');
  await shoot(allowed, 'cross-origin-phone-dark');
  assert.ok(await allowed.evaluate(() => document.documentElement.scrollWidth <= 360), 'the page fits a narrow screen');
});

test('a fetch that sets Last-Event-ID passes its preflight and resumes there', TEST, async (t) => {
  const { app, api, runs } = await start(t);
  const page = await openLoggedIn(t, app);
  const publish = await stranger(api);
  const texts = Array.from({ length: 12 }, (_, n) => `message ${n}`);
  for (const text of texts) await publish(text);
  await shows(page, texts.at(-1));

  const ids = await page.$$eval('#messages > li > code', (found) => found.map((id) => id.textContent));
  assert.equal(ids.length, texts.length);
  const answered = await watch(page, api);
  const before = await runs();
  // Resume after the sixth event.
  await page.evaluate((id) => { firstId = id; }, ids[5]);
  await page.click('#read');
  await shows(page, texts.at(-1), 'reader');
  await publish('live');
  await shows(page, 'live', 'reader');
  assert.deepEqual(await textsOf(page, 'reader'), [...texts.slice(6), 'live']);
  const requests = await until('both requests are known', () => answered().length >= 2 && answered());
  const [asked, ...more] = requests.filter(({ preflight }) => preflight);
  assert.deepEqual(more, []);
  assert.deepEqual([asked.method, asked.url], ['OPTIONS', `${api}/events`]);
  assert.ok([200, 204].includes(asked.status), `the preflight's status was ${asked.status}`);
  assert.equal(asked.sent.get('access-control-request-headers'), 'last-event-id');
  assert.equal(asked.sent.has('cookie'), false);
  const [get] = requests.filter(({ preflight }) => !preflight);
  assert.deepEqual([get.method, get.sent.get('last-event-id'), get.status], ['GET', ids[5], 200]);
  assert.equal(get.received.get('access-control-allow-origin'), app);
  assert.equal(await runs(), before + 1, 'the preflight reached no handler');
  await shoot(page, 'cross-origin-fetch');
  await page.click('#read');
  await until('reading has stopped', async () => (await page.textContent('#read-result')) === 'Stopped.');

  // The browser blocks headers and methods that the preflight did not allow.
  assert.equal(await statusOf(page, `${api}/events`, { headers: { 'X-Other': '1' } }), 'TypeError');
  assert.equal(await statusOf(page, `${api}/events`, { method: 'DELETE' }), 'TypeError');
  assert.equal(await runs(), before + 1);
  assert.deepEqual(page.faults, []);
});

test('the stream cannot be loaded as an image, script or frame, even by an allowed page', TEST, async (t) => {
  const { app, api, runs } = await start(t);
  const page = await openLoggedIn(t, app);
  const before = await runs();
  const answered = await watch(page, api);
  await page.click('#image');
  await until('the page has compared', async () => (await page.getAttribute('#image-result', 'data-result')) !== '');
  assert.equal(await page.textContent('#image-result'), 'Refused, and the handler was not called.');
  const elements = [['img', {}], ['img', { crossOrigin: 'use-credentials' }], ['script', {}], ['script', { crossOrigin: 'use-credentials' }], ['video', {}]];
  for (const [n, [tag, attributes]] of elements.entries()) {
    await page.evaluate(([tag, attributes, src]) => {
      document.body.append(Object.assign(document.createElement(tag), attributes, { src }));
    }, [tag, attributes, `${api}/events?${n}`]);
  }
  const requests = await until('all is answered', () => answered().length >= 1 + elements.length && answered());
  for (const { url, status, sent } of requests) {
    assert.equal(status, 403, url);
    assert.match(sent.get('cookie'), new RegExp(COOKIE));
  }
  assert.ok(requests.some(({ sent }) => sent.get('origin') === app), 'the allowed origin does not help');
  const frame = page.waitForResponse(`${api}/events?frame`);
  await page.evaluate((src) => document.body.append(Object.assign(document.createElement('iframe'), { src })), `${api}/events?frame`);
  assert.equal((await frame).status(), 403);
  // Opening the stream as a page is refused, too.
  const tab = await page.context().newPage();
  assert.equal((await tab.goto(`${api}/events`)).status(), 403);
  assert.equal(await runs(), before);
});

test('after a logout every stream of the session ends, and a 401 that the page can read keeps it closed', TEST, async (t) => {
  const { app, api, counts, runs } = await start(t);
  const page = await openLoggedIn(t, app);
  const beside = await openBeside(page, app);
  await stateIs(beside, 'live');
  const elsewhere = await openLoggedIn(t, app);
  const before = await counts();
  assert.equal(before.open, 3);
  await page.click('#logout');
  for (const tab of [page, beside]) await closedFor(tab, /401: you are not logged in/);
  assert.deepEqual(await kindsOf(beside), ['connected', 'lost', 'closed']);
  assert.equal(await page.evaluate(() => source.readyState), 2);
  assert.equal(await statusOf(page, `${api}/events`), 401);
  assert.equal(await statusOf(page, `${api}/events`, { headers: { 'Last-Event-ID': '1' } }), 401);
  // Each tab ran its EventSource and then a fetch to learn the reason; two more requests follow above.
  assert.deepEqual(await counts(), { runs: before.runs + 6, open: 1 });
  assert.deepEqual(await page.context().cookies(api), []);

  await say(page, 'too late');
  await until('the page says why', async () => /401/.test(await page.textContent('#result')));
  const publish = await stranger(api);
  await publish('meanwhile');
  await shows(elsewhere, 'meanwhile');
  assert.deepEqual(await textsOf(page), []);
  assert.equal(await runs(), before.runs + 6, 'no client reconnected');

  // After the next login the page resumes.
  await logIn(page);
  await shows(page, 'meanwhile');
  assert.deepEqual(await textsOf(page), ['meanwhile']);
  await stateIs(page, 'live');
  assert.deepEqual([...page.faults, ...elsewhere.faults], []);
});

test('a stream ends when its session expires', TEST, async (t) => {
  const { app, api, counts } = await start(t, { settings: () => ({ SESSION: '5' }) });
  const page = await openPage(t, app);
  await closedFor(page, /401/);
  await logIn(page);
  await until('the stream was open', async () => (await kindsOf(page)).includes('connected'));
  await until('it is closed again', async () => (await kindsOf(page)).filter((kind) => kind === 'closed').length === 2);
  assert.deepEqual(await kindsOf(page), ['closed', 'connected', 'lost', 'closed']);
  await closedFor(page, /401: you are not logged in/);
  assert.equal((await counts()).open, 0);
  assert.deepEqual(await page.context().cookies(api), []);
});

// Different hosts are different sites. The browser treats both as secure contexts, so it accepts `Secure` cookies.
async function startBetweenSites(t, crossSite) {
  const started = await start(t, { settings: (port) => ({ ORIGINS: `http://localhost:${port}`, CROSS_SITE: String(crossSite) }) });
  return { ...started, app: `http://localhost:${started.server.port}` };
}

// Debian's Chromium blocks third-party cookies by default, and most other builds do not. This test is about a cookie that is not blocked.
const openUnblocked = (t, url) => openWithPreferences(t, url, { profile: { cookie_controls_mode: 0, block_third_party_cookies: false } });

test('a Lax cookie is not sent across sites, even if the origin is allowed', TEST, async (t) => {
  const { app, api, runs } = await startBetweenSites(t, false);
  const page = await openUnblocked(t, app);
  await closedFor(page, /401/);
  const before = await runs();
  await logIn(page);
  await until('the page has tried again', async () => (await kindsOf(page)).filter((kind) => kind === 'closed').length === 2);
  await closedFor(page, /401: you are not logged in/);
  assert.equal(await runs(), before + 2);
  assert.deepEqual(await page.context().cookies(api), []);
});

test('a cookie with SameSite=None and Secure is sent across sites', TEST, async (t) => {
  const { app, api } = await startBetweenSites(t, true);
  const page = await openUnblocked(t, app);
  await closedFor(page, /401/);
  await logIn(page);
  await stateIs(page, 'live');
  await say(page, 'hello');
  await shows(page, 'hello');
  const cookies = await page.context().cookies(api);
  assert.deepEqual(cookies.map(({ secure, sameSite }) => ({ secure, sameSite })), [{ secure: true, sameSite: 'None' }]);
});

test('SIGINT ends the process in time while streams are open', TEST, async (t) => {
  const { app, server, counts } = await start(t);
  const page = await openLoggedIn(t, app);
  await page.click('#read');
  await until('both streams are open', async () => (await counts()).open === 2);
  const exit = await within('the process ends', server.kill('SIGINT'), SHUTDOWN_BOUND_MS);
  assert.deepEqual(exit, { code: 0, signal: null }, server.output);
  await stateIs(page, 'reconnecting');
});

test('if any of the three ports is taken, the process exits with a message that names the address', TEST, async (t) => {
  const { server, apiPort } = await start(t);
  const [free, alsoFree] = [await freePort(), await freePort()];
  const cases = [
    [server.port, { API_PORT: String(free), OTHER_PORT: String(alsoFree) }, server.port],
    [free, { API_PORT: String(apiPort), OTHER_PORT: String(alsoFree) }, apiPort],
    [free, { API_PORT: String(alsoFree), OTHER_PORT: String(apiPort) }, apiPort],
  ];
  for (const [port, settings, taken] of cases) {
    const second = launch(binary, port, settings);
    t.after(() => second.child.kill('SIGKILL'));
    const { code } = await within('the second process ends', second.closed);
    assert.equal(typeof code, 'number', 'it ended by itself');
    assert.notEqual(code, 0);
    assert.ok(second.output.includes('cross_origin') && second.output.includes(`${HOST}:${taken}`), `its output: ${second.output}`);
  }
});

test('with a bad list entry, the process exits with a message that names it', TEST, async (t) => {
  const bad = launch(binary, await freePort(), { ORIGINS: 'https://app.example *' });
  t.after(() => bad.child.kill('SIGKILL'));
  const { code } = await within('the process ends', bad.closed);
  assert.equal(typeof code, 'number', 'it ended by itself');
  assert.notEqual(code, 0);
  assert.match(bad.output, /ORIGINS.*"\*"/);
});
