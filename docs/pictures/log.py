#!/usr/bin/env python3
"""Draws the log and its cursors for docs/architecture.md, as log-light.svg and log-dark.svg.

    docs/pictures/log.py

Needs only Python 3.
"""

import pathlib

HERE = pathlib.Path(__file__).parent

THEMES = {
    "light": {"page": "#ffffff", "text": "#171b21", "muted": "#59626e", "line": "#98a3b3",
              "retained": "#bcd3ff", "floor": "#ffe2a8", "gone": "#eef1f5", "edge": "#59626e",
              "cursor": "#1d4ed8", "lost": "#b42318"},
    "dark": {"page": "#0d1117", "text": "#e8ebef", "muted": "#9ba5b1", "line": "#5b6675",
             "retained": "#1f4788", "floor": "#6b4e12", "gone": "#1b212a", "edge": "#8894a3",
             "cursor": "#8ab8ff", "lost": "#ff8a80"},
}

WIDTH, HEIGHT = 760, 384
CELL, LEFT = 34, 40
TOP, TALL = 142, 38

# Entries by position. An older segment has left memory; the oldest one here is partly evicted.
SEGMENTS = [
    (3, 9, "sealed segment"),
    (9, 15, "sealed segment"),
    (15, 20, "open"),
]
FIRST, REPLAY, NEXT, SHOWN = 5, 9, 18, 20


def x(position):
    return LEFT + CELL * position


def text(at, y, value, fill, anchor="middle", size=14, style=""):
    return (f'<text x="{at:g}" y="{y:g}" fill="{fill}" text-anchor="{anchor}" '
            f'font-size="{size}"{style}>{value}</text>')


CODE = ' font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"'


def brace(start, end, y, label, colours):
    """A bracket over the entries from `start` to `end`."""
    a, b = x(start) + 3, x(end) - 3
    return [
        f'<path d="M{a} {y + 7}V{y}H{b}V{y + 7}" fill="none" stroke="{colours["muted"]}"/>',
        text((a + b) / 2, y - 8, label, colours["text"]),
    ]


def mark(position, label, note, colours, anchor):
    """A named position, above the log."""
    at = x(position)
    side = 8 if anchor == "start" else -8
    return [
        f'<path d="M{at} 8V{TOP + TALL + 4}" stroke="{colours["edge"]}" stroke-width="1.5"/>',
        text(at + side, 20, label, colours["text"], anchor, 15, CODE + ' font-weight="600"'),
        text(at + side, 38, note, colours["muted"], anchor, 13),
    ]


def cursor(position, y, lines, colours, kind="cursor", anchor="start"):
    """A reader below the log, at the left edge of its next entry."""
    at, fill = x(position), colours[kind]
    side = 10 if anchor == "start" else -10
    out = [
        f'<path d="M{at} {TOP + TALL + 4}l-6 11h12z" fill="{fill}"/>',
        f'<path d="M{at} {TOP + TALL + 14}V{y + 5}" stroke="{fill}" stroke-width="1.5"/>',
    ]
    for index, line in enumerate(lines):
        colour = colours["text"] if index == 0 else colours["muted"]
        out.append(text(at + side, y + 18 * index, line, colour, anchor))
    return out


def draw(colours):
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" '
        'font-family="system-ui, -apple-system, \'Segoe UI\', Helvetica, Arial, sans-serif">',
        "<title>A log with its segments, the positions first, replay and next, "
        "and the cursors of four clients</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{colours["page"]}"/>',
    ]
    for start, end, label in [(0, 3, "freed"), (3, FIRST, "evicted")]:
        fill = colours["gone"] if label == "evicted" else "none"
        out.append(f'<rect x="{x(start) + 2}" y="{TOP}" width="{x(end) - x(start) - 4}" '
                   f'height="{TALL}" rx="3" fill="{fill}" stroke="{colours["line"]}" '
                   'stroke-dasharray="3 4"/>')
        out.append(text((x(start) + x(end)) / 2, TOP + 24, label, colours["muted"], size=13))
    for position in range(FIRST, SHOWN):
        fill, dash = colours["floor" if position < REPLAY else "retained"], ""
        if position >= NEXT:
            fill, dash = "none", ' stroke-dasharray="3 4"'
        out.append(f'<rect x="{x(position) + 2}" y="{TOP}" width="{CELL - 4}" height="{TALL}" '
                   f'rx="3" fill="{fill}" stroke="{colours["line"]}"{dash}/>')
    for start, end, label in SEGMENTS:
        out.append(f'<rect x="{x(start)}" y="{TOP - 24}" width="{x(end) - x(start)}" '
                   f'height="{TALL + 28}" rx="5" fill="none" stroke="{colours["edge"]}" '
                   'stroke-width="1.5"/>')
        # The line at `next` crosses the right half of the open segment.
        at, anchor = (x(start) + 8, "start") if label == "open" else (x(end) - 8, "end")
        out.append(text(at, TOP - 8, label, colours["muted"], anchor, 13))

    out += brace(FIRST, REPLAY, TOP - 38, "live floor", colours)
    out += brace(REPLAY, NEXT, TOP - 38, "retained events", colours)
    out += mark(FIRST, "first", "oldest entry kept", colours, "end")
    out += mark(REPLAY, "replay", "oldest entry for a seek", colours, "start")
    out += mark(NEXT, "next", "for the next event", colours, "end")

    out += cursor(2, 352, ["Slow client: overrun.", "Gap event, then on from first."],
                  colours, "lost")
    out += cursor(FIRST, 298, ["Connected client that keeps up.",
                               "The live floor holds what it has not read yet."], colours)
    out += cursor(12, 244, ["Returning client:", "replay after a seek."],
                  colours, anchor="end")
    out += cursor(NEXT, 244, ["Live client at the end:", "asleep until woken."], colours,
                  anchor="end")
    out.append("</svg>\n")
    return "\n".join(out)


for theme, colours in THEMES.items():
    (HERE / f"log-{theme}.svg").write_text(draw(colours), encoding="utf-8")
