// What the browser tests and the proxy tests share: an address, a port, a pause.

import net from 'node:net';

export const HOST = '127.0.0.1';

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Below the range of ephemeral ports: while a server restarts, a client that keeps trying its port could otherwise be assigned that same port, and
// connect to itself.
export async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const probe = net.createServer();
    const free = await new Promise((resolve) => {
      probe.once('error', () => resolve(false));
      probe.listen(port, HOST, () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => probe.close(resolve));
    return port;
  }
}
