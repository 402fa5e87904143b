// What the example pages share: elements, the state of a connection, its log, requests, and a chart.
'use strict';

const MAX_LOG = 50;
const STATES = {
  idle: 'Not started',
  connecting: 'Connecting',
  live: 'Live',
  reconnecting: 'Reconnecting',
  paused: 'Paused',
  finished: 'Finished',
  closed: 'Closed',
};
const GAP_REASONS = {
  evicted: 'the server no longer keeps all that this page missed',
  unknown: 'the server does not know the last event id',
  restarted: 'the server restarted, and its earlier events are gone',
  lagged: 'this page read too slowly',
  truncated: 'the history is longer than what the server keeps',
};

const pageTitle = document.title;
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

/* Elements */

const $ = (id) => document.getElementById(id);

// `kind` is a tag, with a class if one follows a dot.
function make(kind, text = '', data = {}) {
  const [tag, className = ''] = kind.split('.');
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  Object.assign(element.dataset, data);
  return element;
}

function makeTime(at) {
  const element = make('time', clock.format(at));
  element.dateTime = new Date(at).toISOString();
  return element;
}

// Removes the last children of a list whose newest comes first.
function trim(list, max) {
  while (list.children.length > max) list.lastElementChild.remove();
}

// Makes a change and shows the end of `scroll`, unless the reader has scrolled away from it.
function keepAtEnd(scroll, change) {
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 40;
  change();
  if (atEnd) scroll.scrollTop = scroll.scrollHeight;
}

function showResult(id, kind, text) {
  $(id).dataset.result = kind;
  $(id).textContent = text;
}

// Counts the loads of this tab, which a reload does not reset.
function countLoads() {
  sessionStorage.loads = Number(sessionStorage.loads ?? 0) + 1;
  return sessionStorage.loads;
}

/* The connection */

function setState(state, text = STATES[state]) {
  $('state').dataset.state = state;
  $('state').textContent = text;
  // In a tab in the background, too, one sees that something is wrong.
  document.title = ['live', 'idle'].includes(state) ? pageTitle : `${text} – ${pageTitle}`;
}

// What happened, the newest first.
function log(kind, text, details = {}) {
  const item = make('li', '', { kind, ...details });
  item.append(makeTime(Date.now()), make('span', text));
  $('log').prepend(item);
  trim($('log'), MAX_LOG);
}

const seconds = (ms) => (ms < 10_000 ? (ms / 1000).toFixed(1) : String(Math.round(ms / 1000)));

// Shows the state of an EventSource in the pill, and each change in the log.
function watch(source, { connected = 'Connected', onClosed } = {}) {
  let opened = false;
  let lostAt = null;
  source.addEventListener('open', () => {
    if (lostAt !== null && opened) log('reconnected', `Reconnected after ${seconds(performance.now() - lostAt)} s`);
    else log('connected', connected);
    opened = true;
    lostAt = null;
    setState('live');
  });
  source.addEventListener('error', () => {
    if (source.readyState === EventSource.CLOSED) {
      setState('closed');
      if (onClosed) onClosed();
      else log('closed', 'Closed: the server refused the stream, or has nothing more to send');
      return;
    }
    // Each failed attempt is an error, too; one outage is one line.
    if (lostAt === null) log('lost', opened ? 'Connection lost; the browser reconnects by itself' : 'No connection yet; the browser keeps trying');
    lostAt ??= performance.now();
    setState(opened ? 'reconnecting' : 'connecting');
  });
}

// A new EventSource starts without the id of the one before, and a page cannot set that header: it goes into the address.
const resumeAt = (url, id) => (id === '' ? url : `${url}?lastEventId=${encodeURIComponent(id)}`);

function logGap({ reason, missed, oldest }, details = {}) {
  const count = missed === null ? '' : `; ${missed} ${missed === 1 ? 'event' : 'events'} missed`;
  const where = details.channel ? ` in ${details.channel}` : '';
  log('gap', `Gap${where}, ${reason}: ${GAP_REASONS[reason]}${count}`, { reason, missed: missed ?? '', oldest: oldest ?? '', ...details });
}

/* Requests */

// Sends text as text, and all else as JSON. `why` completes "Not sent", with the server's reason if there is one.
async function send(method, url, body, options = {}) {
  const [type, content] = typeof body === 'string' ? ['text/plain;charset=UTF-8', body] : ['application/json', JSON.stringify(body)];
  try {
    const response = await fetch(url, { method, headers: { 'Content-Type': type }, body: content, ...options });
    const text = (await response.text()).trim();
    return { ok: response.ok, text, why: ` (${response.status}): ${text || response.statusText}` };
  } catch {
    return { ok: false, text: '', why: ': the server cannot be reached' };
  }
}

// Shows a command that reaches this server.
function showCommand(id, command) {
  $(id).textContent = command(new URL('.', location.href).href);
}

/* Charts */

const reducedMotion = matchMedia('(prefers-reduced-motion: reduce)');
const WINDOW_MS = 60_000;
const MAX_POINTS = 240;
// Charts show the time a little before the newest point: each new piece of line slides in from the right instead of appearing at once.
const DELAY_MS = 1_150;

let colours = new Map();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { colours = new Map(); });

function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colours.get(name);
}

// The last minute of some values, each point with the server's time in `at`, in milliseconds.
class Timeline {
  constructor() {
    this.points = [];
    this.gapAhead = false;
    // Server time minus this page's monotonic clock. The two machines' clocks may differ by hours.
    this.offset = null;
  }

  get now() {
    return this.offset === null ? 0 : performance.now() + this.offset - DELAY_MS;
  }

  add(at, values) {
    const { points } = this;
    // Time went back: the server's clock was set, or history came again. A line drawn backwards would be worse than a fresh start.
    if (points.length > 0 && at <= points.at(-1).at) {
      points.length = 0;
      this.offset = null;
    }
    points.push({ at, gap: this.gapAhead, ...values });
    this.gapAhead = false;
    while (points.length > MAX_POINTS || points[0].at < at - WINDOW_MS - 10_000) points.shift();

    // The point with the least delay shows the true difference, so it counts at once. Later ones pull gently, which hides jitter, and
    // replayed ones, which are late by design, hardly at all.
    const offset = at - performance.now();
    if (this.offset === null || offset > this.offset) this.offset = offset;
    else this.offset -= (this.offset - offset) * (this.offset - offset < 2000 ? 0.1 : 0.001);
  }
}

// Draws some values of a timeline: `series` with a key, a colour and whether the area below is filled; `top(largest)` is the end of the scale.
class Chart {
  constructor(canvas, timeline, options) {
    Object.assign(this, { canvas, timeline, options, context: canvas.getContext('2d'), top: options.top(0), font: getComputedStyle(document.body).fontFamily });
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
    let drawn = 0;
    const frame = (time) => {
      // A line that moves less than 20 px a second needs no more than 30 frames; with reduced motion it steps once a second.
      if (time - drawn >= (reducedMotion.matches ? 1000 : 30)) {
        drawn = time;
        this.draw();
      }
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  resize() {
    const scale = window.devicePixelRatio || 1;
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    this.canvas.width = Math.round(this.width * scale);
    this.canvas.height = Math.round(this.height * scale);
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    // A new size clears the canvas; without this it would stay blank until the next frame.
    this.draw();
  }

  draw() {
    const { context: c, width, height, options } = this;
    const { points, now } = this.timeline;
    if (width === 0) return;
    const box = { left: 0, right: width - options.gutter, top: 8, bottom: height - 22 };
    const target = options.top(Math.max(0, ...points.flatMap((point) => options.series.map(({ key }) => point[key]))));
    const still = reducedMotion.matches || Math.abs(target - this.top) < target / 200;
    this.top = still ? target : this.top + (target - this.top) * 0.18;

    const x = (at) => box.right - ((now - at) / WINDOW_MS) * (box.right - box.left);
    const y = (value) => box.bottom - (Math.min(value, this.top) / this.top) * (box.bottom - box.top);

    c.clearRect(0, 0, width, height);
    c.font = `12px ${this.font}`;
    c.lineWidth = 1;
    c.textBaseline = 'middle';
    c.textAlign = 'left';
    for (let step = 0; step <= 4; step += 1) {
      const level = box.bottom - (step / 4) * (box.bottom - box.top);
      c.strokeStyle = colour('line');
      c.beginPath();
      c.moveTo(box.left, Math.round(level) + 0.5);
      c.lineTo(box.right, Math.round(level) + 0.5);
      c.stroke();
      c.fillStyle = colour('muted');
      // The scale it moves to: nobody could read numbers that run while the scale eases.
      if (step % 2 === 0) c.fillText(options.label((target * step) / 4), box.right + 8, level);
    }
    c.fillStyle = colour('muted');
    c.textBaseline = 'alphabetic';
    c.fillText('60 s ago', box.left, height - 5);
    c.textAlign = 'center';
    c.fillText('30 s', (box.left + box.right) / 2, height - 5);
    c.textAlign = 'right';
    c.fillText('now', box.right, height - 5);

    if (points.length === 0) return;
    c.save();
    c.beginPath();
    c.rect(box.left, 0, box.right - box.left, box.bottom + 1);
    c.clip();
    this.drawGaps(points, x, box);
    for (const series of options.series) this.drawSeries(points, series, x, y, box);
    c.restore();
  }

  drawGaps(points, x, box) {
    const c = this.context;
    for (let i = 1; i < points.length; i += 1) {
      if (!points[i].gap) continue;
      const [from, to] = [x(points[i - 1].at), x(points[i].at)];
      c.globalAlpha = 0.5;
      c.fillStyle = colour('wait-soft');
      c.fillRect(from, box.top, to - from, box.bottom - box.top);
      c.globalAlpha = 1;
      c.strokeStyle = colour('wait');
      c.setLineDash([3, 4]);
      c.beginPath();
      for (const edge of [from, to]) {
        c.moveTo(edge, box.top);
        c.lineTo(edge, box.bottom);
      }
      c.stroke();
      c.setLineDash([]);
      if (to - from <= 30) continue;
      c.fillStyle = colour('wait');
      c.textAlign = 'center';
      c.textBaseline = 'top';
      c.fillText('gap', (from + to) / 2, box.top + 6);
    }
  }

  drawSeries(points, series, x, y, box) {
    const c = this.context;
    c.fillStyle = colour(series.colour);
    c.strokeStyle = colour(series.colour);
    c.lineWidth = 2;
    c.lineJoin = 'round';
    c.lineCap = 'round';
    let start = 0;
    for (let end = 1; end <= points.length; end += 1) {
      if (end < points.length && !points[end].gap) continue;
      const run = points.slice(start, end).map((point) => [x(point.at), y(point[series.key])]);
      start = end;
      if (run.length === 1) {
        // A line of one point has no length and would not show.
        c.beginPath();
        c.arc(...run[0], 2, 0, 2 * Math.PI);
        c.fill();
        continue;
      }
      const path = new Path2D();
      path.moveTo(...run[0]);
      for (let i = 1; i < run.length; i += 1) {
        const [[x0, y0], [x1, y1]] = [run[i - 1], run[i]];
        const middle = (x0 + x1) / 2;
        // Level tangents at both ends: the curve is smooth and never leaves the range of the two measured values.
        path.bezierCurveTo(middle, y0, middle, y1, x1, y1);
      }
      if (series.fill) {
        const area = new Path2D(path);
        area.lineTo(run.at(-1)[0], box.bottom);
        area.lineTo(run[0][0], box.bottom);
        c.globalAlpha = 0.1;
        c.fill(area);
        c.globalAlpha = 1;
      }
      c.stroke(path);
    }
  }
}
