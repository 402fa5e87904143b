// The clients from npm: `node clients.mjs <client> <base> <run>` prints the events that the client received, as JSON.

import { fetchEventSource } from '@microsoft/fetch-event-source';
import { EventSource } from 'eventsource';
import { EventSourceParserStream } from 'eventsource-parser/stream';
import { EventSource as UndiciEventSource } from 'undici';

import { readAll, scenes } from './event-source.mjs';

const [client, base, run] = process.argv.slice(2);

const clients = {
  eventsource: () => readAll(EventSource, base, run),
  undici: () => readAll(UndiciEventSource, base, run),
  'eventsource-parser': () => each(parse),
  'fetch-event-source': () => each(fetchEvents),
};

async function each(read) {
  const transcript = {};
  for (const scene of scenes) transcript[scene] = await read(String(new URL(`${scene}?run=${run}`, base)));
  return transcript;
}

// This package only parses, so this is the reconnect loop that its users write.
async function parse(url) {
  const events = [];
  let last = '';
  for (;;) {
    const response = await fetch(url, { headers: last ? { 'last-event-id': last } : {} });
    if (response.status === 204) return events;
    try {
      const stream = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
      for await (const { event = 'message', data, id } of stream) {
        events.push({ type: event, data, lastEventId: id ?? '' });
        if (id) last = id;
      }
    } catch (error) {
      if (!isCut(error)) throw error;
    }
  }
}

const isCut = (error) => error instanceof TypeError && error.message === 'terminated';

// fetch-event-source is written for pages, and needs these globals.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };

// By default it reconnects after an error, but not after the end of a stream, and it does not handle 204. Its documentation shows this code for both.
class Stop extends Error {}

async function fetchEvents(url) {
  const events = [];
  const reading = fetchEventSource(url, {
    async onopen(response) {
      if (response.status === 204) throw new Stop();
    },
    onmessage({ event, data, id }) {
      events.push({ type: event || 'message', data, lastEventId: id });
    },
    onclose() {
      throw new Error('the stream has ended');
    },
    onerror(error) {
      if (error instanceof Stop) throw error;
    },
  });
  await reading.catch((error) => {
    if (!(error instanceof Stop)) throw error;
  });
  return events;
}

// undici's reconnect timer does not keep the process alive, so this does.
const awake = setInterval(() => {}, 60_000);
process.stdout.write(JSON.stringify(await clients[client]()));
clearInterval(awake);
