#!/usr/bin/env python3
"""Draws how cost grows, as SVG files, from what the benchmark measured.

    cargo run --release -p fanout -- --curves --json curves.json
    benches/curves.py curves.json docs/curves

Needs Python 3 and nothing else. Both axes are logarithmic where there is no zero; a point is the
median of its rounds, the bar through it their range.
"""

import json
import math
import pathlib
import statistics
import sys

# The curves that docs/performance.md shows: the figure, the heading, and the unit of the x axis. The
# benchmark measures more, among them the resident memory (`rss`).
FIGURES = {
    "connections": [("cpu", "CPU µs per delivered event")],
    "event size": [("cpu", "CPU µs per delivered event")],
}
UNITS = {"connections": "connections", "event size": "bytes of data per event"}
COLOURS = {"ours": "#c2410c", "limit": "#475569", "axum": "#2563eb"}
WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 76, 90, 44, 56


class Axis:
    """Maps values to pixels; logarithmic, with zero (if it occurs) one step before the rest."""

    def __init__(self, values, start, end):
        self.start, self.end = start, end
        positive = [value for value in values if value > 0]
        self.low = math.log10(min(positive))
        self.high = math.log10(max(positive))
        if self.high - self.low < 0.3:
            middle = (self.high + self.low) / 2
            self.low, self.high = middle - 0.15, middle + 0.15
        margin = (self.high - self.low) * 0.06
        self.zero = self.low - margin - (self.high - self.low) * 0.1
        self.bottom = self.zero if len(positive) < len(values) else self.low - margin
        self.top = self.high + margin

    def at(self, value):
        place = math.log10(value) if value > 0 else self.zero
        part = (place - self.bottom) / (self.top - self.bottom)
        return self.start + part * (self.end - self.start)

    def ticks(self):
        steps = (1, 2, 5) if self.high - self.low < 2 else (1,)
        powers = range(math.floor(self.low) - 1, math.ceil(self.high) + 1)
        ticks = [step * 10.0**power for power in powers for step in steps]
        return [tick for tick in ticks if self.bottom <= math.log10(tick) <= self.top]


def shown(value):
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def text(x, y, content, anchor="middle", **more):
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{attributes}>{content}</text>'


def line(x1, y1, x2, y2, colour, width=1):
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{colour}" stroke-width="{width}"/>'


def draw(curve, heading, series):
    """One chart. `series` has for each label a list of (x, values)."""
    points = [point for line_ in series.values() for point in line_]
    across = Axis([x for x, _ in points], LEFT, WIDTH - RIGHT)
    up = Axis([value for _, values in points for value in values], HEIGHT - BOTTOM, TOP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(LEFT, 24, heading, "start", font_size=15, fill="#0f172a"),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, UNITS[curve], fill="#475569"),
    ]
    for tick in up.ticks():
        y = up.at(tick)
        out.append(line(LEFT, y, WIDTH - RIGHT, y, "#e2e8f0"))
        out.append(text(LEFT - 8, y + 4, shown(tick), "end", fill="#475569"))
    free = WIDTH
    for x in sorted({x for x, _ in points}, reverse=True):
        at, label = across.at(x), shown(x) if x else "0"
        out.append(line(at, HEIGHT - BOTTOM, at, HEIGHT - BOTTOM + 5, "#94a3b8"))
        half = 4 * len(label)
        if at + half < free:
            out.append(text(at, HEIGHT - BOTTOM + 20, label, fill="#475569"))
            free = at - half
    for label, entries in series.items():
        colour = COLOURS.get(label, "#000000")
        entries = sorted(entries)
        middles = [(across.at(x), up.at(statistics.median(values))) for x, values in entries]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in middles)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (x, values), (at, middle) in zip(entries, middles):
            out.append(line(at, up.at(min(values)), at, up.at(max(values)), colour))
            out.append(f'<circle cx="{at:.1f}" cy="{middle:.1f}" r="3" fill="{colour}"/>')
        at, middle = middles[-1]
        out.append(text(at + 10, middle + 4, label, "start", fill=colour))
    out.append("</svg>\n")
    return "\n".join(out)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    measured = json.loads(pathlib.Path(sys.argv[1]).read_text())
    directory = pathlib.Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    for curve, figures in FIGURES.items():
        for figure, heading in figures:
            series = {}
            for point in measured["points"]:
                values = [run[figure] for run in point["rounds"] if figure in run]
                if point["curve"] == curve and values:
                    series.setdefault(point["label"], []).append((point["x"], values))
            if series:
                file = directory / f"{curve.replace(' ', '-')}-{figure}.svg"
                file.write_text(draw(curve, heading, series))
                print(file)


if __name__ == "__main__":
    main()
