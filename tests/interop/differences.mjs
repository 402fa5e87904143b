// What a client reports otherwise than the standard has it, as this suite saw it on 2026-11-21 with the pinned versions. One sentence each;
// then `change` turns an event that is expected into what the client makes of it, an event or a list of events, and `connections` does the same
// with the ids that it comes back with to /resume. The driver fails where a difference is missing here, and where one here does not show.

const ownIdOnly = {
  what: 'gives an event the id of its own block, or none',
  change: (event) => (event.ownId ? event : { ...event, lastEventId: '' }),
};

// `resume` is: a checkpoint, the events 1 to 10, the end. By the standard, a broken line cuts event 4, and the end of a stream cuts event 7.
const inResume = (number, change) => (event, { scene, at }) => (scene === 'resume' && number.includes(at) ? change(event) : event);

export const differences = {
  eventsource: [ownIdOnly],

  'eventsource-parser': [ownIdOnly],

  '@microsoft/fetch-event-source': [
    ownIdOnly,
    {
      what: 'leaves out a byte order mark at the start of a line of data',
      change: (event) => ({ ...event, data: event.data.replaceAll(/^\uFEFF/gm, '') }),
    },
    {
      what: 'leaves out empty lines at the start of data',
      change: (event) => ({ ...event, data: event.data.replace(/^\n+/, '') }),
    },
    {
      what: 'takes an id over when it reads its line: what is cut behind that line is not asked for again (events 4 and 8)',
      change: inResume([4, 8], () => []),
      connections: (ids, resume) => [...ids.slice(0, 2), ...[4, 6, 8].map((number) => resume[number].lastEventId), ids[5]],
    },
  ],

  'sseclient-py': [
    ownIdOnly,
    {
      what: 'counts what stands in front of the end of a stream as an event (event 7, of which it has half)',
      change: inResume([7], (event) => ({ ...event, data: '70' })),
      connections: (ids, resume) => ids.with(4, resume[7].lastEventId),
    },
  ],
};
