'use strict';

const MAX_LOG = 50;
const STATES = { connecting: 'Connecting', live: 'Live', reconnecting: 'Reconnecting', finished: 'Finished', closed: 'Closed' };

const $ = (id) => document.getElementById(id);
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

function make(tag, text, data = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  Object.assign(element.dataset, data);
  return element;
}

function setState(state, words = STATES) {
  $('state').dataset.state = state;
  $('state').textContent = words[state];
}

// What happened, the newest first.
function log(kind, text) {
  const item = make('li', '', { kind });
  item.append(make('time', clock.format(Date.now())), make('span', text));
  $('log').prepend(item);
  while ($('log').children.length > MAX_LOG) $('log').lastElementChild.remove();
}

// Says in the pill and in the log how an EventSource fares.
function watch(source) {
  let lost = false;
  let everOpen = false;
  source.addEventListener('open', () => {
    log('connected', everOpen ? 'Reconnected' : 'Connected');
    setState('live');
    everOpen = true;
    lost = false;
  });
  source.addEventListener('error', () => {
    const closed = source.readyState === EventSource.CLOSED;
    if (closed) log('lost', 'Closed: the server has said that nothing more will come, or has refused');
    else if (!lost) log('lost', 'The stream has ended, or the connection is lost; the browser comes back by itself');
    lost = true;
    setState(closed ? 'closed' : everOpen ? 'reconnecting' : 'connecting');
  });
}
