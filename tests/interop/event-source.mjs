// Reads every scene with an `EventSource` from a browser or a package.

export const scenes = ['shapes', 'pings', 'gap', 'snapshot', 'resume'];

export async function readAll(EventSource, base, run) {
  const types = await (await fetch(new URL('types', base))).json();
  const transcript = {};
  for (const scene of scenes) {
    transcript[scene] = await read(new EventSource(String(new URL(`${scene}?run=${run}`, base))), types);
  }
  return transcript;
}

// Resolves when the source closes for good, after a 204.
function read(source, types) {
  return new Promise((resolve) => {
    const events = [];
    const note = ({ type, data, lastEventId }) => events.push({ type, data, lastEventId });
    for (const type of types.filter((type) => type !== 'error')) source.addEventListener(type, note);
    source.addEventListener('error', (event) => {
      // The server's event of this name has data; the source's own has none.
      if (typeof event.data === 'string') note(event);
      else if (source.readyState === 2) resolve(events);
    });
  });
}
