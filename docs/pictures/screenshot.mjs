// Takes the pictures of the quickstart page, light and dark, from the running example.
//
//     cargo build --release --example quickstart
//     (cd tests/browser && npm ci)
//     node docs/pictures/screenshot.mjs
//
// It takes a good minute. Meanwhile the connection is cut for some seconds, which leaves no hole, and the server is restarted, which leaves
// a gap. The charts show this machine's load, so take the pictures while nothing else runs.
//
// QUICKSTART  the binary (default: target/release/examples/quickstart)
// CHROMIUM    the browser (default: /usr/bin/chromium)

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import net from 'node:net';
import { fileURLToPath } from 'node:url';

const root = new URL('../../', import.meta.url);
const { chromium } = createRequire(new URL('tests/browser/package.json', root))('playwright-core');

const HOST = '127.0.0.1';
const PORT = 32_517;
const WIDTH = 1200;
const binary = process.env.QUICKSTART ?? fileURLToPath(new URL('target/release/examples/quickstart', root));

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const note = (text) => fetch(`http://${HOST}:${PORT}/publish`, { method: 'POST', body: text });

let server;
async function startServer() {
  server = spawn(binary, [], { env: { ...process.env, HOST, PORT: String(PORT) }, stdio: ['ignore', 'pipe', 'inherit'] });
  await once(server.stdout, 'data');
}

// The line from the browser to the server.
const sockets = new Set();
let cut = false;
const line = net.createServer((client) => {
  if (cut) return client.destroy();
  const upstream = net.connect(PORT, HOST);
  for (const [from, to] of [[client, upstream], [upstream, client]]) {
    sockets.add(from);
    from.on('error', () => to.destroy()).on('close', () => to.destroy()).pipe(to);
  }
});

function setCut(value) {
  cut = value;
  if (cut) for (const socket of sockets) socket.destroy();
  sockets.clear();
}

// Load on one core that rises and falls, so that the chart has something to show on an idle machine.
async function work(forMs) {
  const start = performance.now();
  for (let at = 0; at < forMs; at = performance.now() - start) {
    const busy = 25 * (1 + Math.sin(at / 4000) * Math.cos(at / 1700));
    const end = performance.now() + busy;
    while (performance.now() < end) createHash('sha256').update('load').digest();
    await pause(50 - busy / 2);
  }
}

async function story() {
  await work(24_000);
  await note('Deploying version 1.4.2');
  await work(6_000);
  setCut(true);
  await work(6_000);
  setCut(false);
  await work(14_000);
  server.kill('SIGKILL');
  await once(server, 'exit');
  await work(4_000);
  await startServer();
  await work(4_000);
  await note('Version 1.4.2 is live');
  await work(5_000);
}

async function take(page, colorScheme) {
  await page.emulateMedia({ colorScheme });
  // The charts are redrawn in the next frames.
  await pause(500);
  const bottom = await page.$eval('.notes', (element) => element.getBoundingClientRect().bottom + scrollY);
  const path = fileURLToPath(new URL(`docs/pictures/quickstart-${colorScheme}.png`, root));
  await page.screenshot({ path, fullPage: true, clip: { x: 0, y: 0, width: WIDTH, height: Math.round(bottom + 12) } });
  console.log(path);
}

await startServer();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  chromiumSandbox: process.getuid?.() !== 0,
});
try {
  line.listen(0, HOST);
  await once(line, 'listening');
  const page = await browser.newPage({ viewport: { width: WIDTH, height: 900 } });
  await page.goto(`http://${HOST}:${line.address().port}`);
  await story();
  await take(page, 'light');
  await take(page, 'dark');
} finally {
  await browser.close();
  server.kill();
  setCut(true);
  line.close();
}
