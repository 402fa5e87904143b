// Where a client deviates from the standard, as this suite observed on 2026-11-21 with the pinned versions. `what` describes the difference in one
// sentence. `change` turns an expected event into what the client reports: an event or a list of events. `connections` does the same with the
// ids that the client sends when it reconnects to /resume. The suite fails if a difference is missing here, or if one listed here no longer occurs.

const ownIdOnly = {
  what: 'reports only the id of the event\'s own block, or none',
  change: (event) => (event.ownId ? event : { ...event, lastEventId: '' }),
};

// `resume` sends a checkpoint, events 1 to 10, and a last event. The connection breaks inside event 4, and the stream ends inside event 7. A
// client that follows the standard discards both.
const inResume = (number, change) => (event, { scene, at }) => (scene === 'resume' && number.includes(at) ? change(event) : event);

export const differences = {
  eventsource: [ownIdOnly],

  'eventsource-parser': [ownIdOnly],

  '@microsoft/fetch-event-source': [
    ownIdOnly,
    {
      what: 'drops a byte order mark at the start of a line of data',
      change: (event) => ({ ...event, data: event.data.replaceAll(/^\uFEFF/gm, '') }),
    },
    {
      what: 'drops empty lines at the start of data',
      change: (event) => ({ ...event, data: event.data.replace(/^\n+/, '') }),
    },
    {
      what: 'stores an id as soon as it reads the id line, so it loses an event that is cut after that line (events 4 and 8)',
      change: inResume([4, 8], () => []),
      connections: (ids, resume) => [...ids.slice(0, 2), ...[4, 6, 8].map((number) => resume[number].lastEventId), ids[5]],
    },
  ],

  'sseclient-py': [
    ownIdOnly,
    {
      what: 'reports an incomplete event when the stream ends (half of event 7)',
      change: inResume([7], (event) => ({ ...event, data: '70' })),
      connections: (ids, resume) => ids.with(4, resume[7].lastEventId),
    },
  ],
};
