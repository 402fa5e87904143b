#!/usr/bin/env python3
"""Draws the main figures of docs/performance.md as figures-light.svg and figures-dark.svg.

    cargo run --release -p fanout -- --json fanout.json
    docs/pictures/chart.py fanout.json    # keeps the medians and ranges in figures.json, and draws
    docs/pictures/chart.py                # draws what figures.json holds

Needs Python 3 and nothing else. A bar is the median of the rounds, the thin line its range.
"""

import datetime
import json
import math
import pathlib
import statistics
import sys

HERE = pathlib.Path(__file__).parent
FIGURES = HERE / "figures.json"

# What figures.json keeps of each server's rounds.
KEPT = [
    "cpu", "per_write", "p50", "p99", "seconds", "memory", "used", "sockets", "connect",
    "cpu_seconds", "back", "lost", "rss", "unsent",
]

SERVERS = {
    "ours": "axum-sse",
    "axum": "axum’s Sse",
    "handrolled": "by hand, broadcast",
    "axum, one router": "axum’s Sse, one router",
}
PEERS = ["ours", "axum", "handrolled"]

# Heading, condition, unit, and the bars: scenario, figure, server, and a label if it is not the server's.
PANELS = [
    ("CPU time per delivered event", "500 connections, 100 events/s", "µs",
     [("half", "cpu", server, None) for server in PEERS]),
    ("CPU time per delivered event", "1,000 connections, 16 events in flight", "µs",
     [("in-flight", "cpu", server, None) for server in PEERS]),
    ("Latency, p50 and p99", "1,000 connections, 100 events/s, one core full", "ms",
     [("steady", figure, server, SERVERS[server] if figure == "p50" else "") for server in PEERS
      for figure in ("p50", "p99")]),
    ("Memory per idle connection", "10,000 connections", "KiB",
     [("idle", "memory", server, None) for server in ("ours", "axum", "axum, one router")]),
]

THEMES = {
    "light": {"page": "#ffffff", "line": "#d9dee5", "text": "#171b21", "muted": "#59626e",
              "ours": "#2563eb", "peer": "#98a3b3", "range": "#171b21"},
    "dark": {"page": "#0d1117", "line": "#2b323c", "text": "#e8ebef", "muted": "#9ba5b1",
             "ours": "#6ea6ff", "peer": "#5b6675", "range": "#e8ebef"},
}

WIDTH, GUTTER, MARGIN = 760, 40, 20
PANEL = (WIDTH - 2 * MARGIN - GUTTER) / 2
# Room for the numbers, right of the axis.
VALUES = 104
HEAD, ROW, PAIR, FOOT = 54, 44, 18, 34


def spread(values):
    """Median, least, most; as many digits as the reports show."""
    return [round(value, 3) for value in (statistics.median(values), min(values), max(values))]


def reduced(bench):
    """What figures.json keeps of the JSON that the benchmark wrote."""

    def servers(scenario):
        for one in scenario["contestants"]:
            figures = {
                name: spread([run[name] for run in one["rounds"]])
                for name in KEPT
                if one["rounds"] and all(name in run for run in one["rounds"])
            }
            yield one["label"], figures

    def bar(one):
        ratio = one["ratio"]
        return {**one, "ratio": [round(ratio[name], 2) for name in ("median", "least", "most")]}

    day = datetime.datetime.fromtimestamp(bench["measured"], datetime.timezone.utc).date()
    return {
        "measured": day.isoformat(),
        "machine": bench["machine"],
        "scenarios": [
            {
                "name": scenario["name"],
                "title": scenario["title"],
                "rounds": max(len(one["rounds"]) for one in scenario["contestants"]),
                "servers": dict(servers(scenario)),
            }
            for scenario in bench["scenarios"]
        ],
        "bars": [bar(one) for one in bench["bars"]],
    }


def written(figures):
    """JSON with a line per server, so that changes can be read."""

    def dumps(value):
        return json.dumps(value, ensure_ascii=False)

    def scenario(one):
        head = [f'      "{key}": {dumps(one[key])}' for key in ("name", "title", "rounds")]
        servers = [f"        {dumps(label)}: {dumps(of)}" for label, of in one["servers"].items()]
        servers = '      "servers": {\n' + ",\n".join(servers) + "\n      }"
        return "    {\n" + ",\n".join([*head, servers]) + "\n    }"

    parts = [
        f'  "measured": {dumps(figures["measured"])}',
        f'  "machine": {dumps(figures["machine"])}',
        '  "scenarios": [\n' + ",\n".join(map(scenario, figures["scenarios"])) + "\n  ]",
        '  "bars": [\n' + ",\n".join(f"    {dumps(bar)}" for bar in figures["bars"]) + "\n  ]",
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def text(x, y, content, fill, size=14, anchor="start", weight=None):
    bold = f' font-weight="{weight}"' if weight else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"{bold}>{content}</text>'


def rect(x, y, width, height, fill, radius=0):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius}" fill="{fill}"/>'


def shown(value):
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def scale(largest):
    """The end of an axis that begins at zero, and its step."""
    power = 10 ** math.floor(math.log10(largest))
    step = next(power * part for part in (0.2, 0.25, 0.5, 1, 2) if math.ceil(largest / (power * part)) <= 5)
    return step * math.ceil(largest / step), step


def height(bars):
    return HEAD + sum(PAIR if label == "" else ROW for *_, label in bars) + FOOT - 6


def panel(left, top, heading, condition, unit, bars, figures, theme):
    def value(scenario, figure, server):
        one = next(entry for entry in figures["scenarios"] if entry["name"] == scenario)
        return one["servers"][server][figure]

    values = [value(*bar[:3]) for bar in bars]
    end, step = scale(max(most for *_, most in values))

    def at(number):
        return left + number / end * (PANEL - VALUES)

    out = [
        text(left, top + 16, heading, theme["text"], 16, weight=600),
        text(left, top + 36, condition, theme["muted"], 13),
    ]
    bottom = top + height(bars) - FOOT
    for tick in range(round(end / step) + 1):
        number = tick * step
        x = at(number)
        out.append(f'<line x1="{x:.1f}" y1="{top + HEAD - 8}" x2="{x:.1f}" y2="{bottom}" stroke="{theme["line"]}"/>')
        out.append(text(x, bottom + 18, f"{number:g}", theme["muted"], 13, "middle" if tick else "start"))
    y = top + HEAD
    for (scenario, figure, server, label), (median, least, most) in zip(bars, values):
        ours = server == "ours"
        if label != "":
            out.append(text(left, y + 10, label or SERVERS[server], theme["text"], 14, weight=600 if ours else None))
            y += 16
        colour = theme["ours" if ours else "peer"]
        out.append(rect(left, y, at(median) - left, 14, colour, 2))
        middle = y + 7
        out.append(f'<path d="M{at(least):.1f} {middle}H{at(most):.1f}" stroke="{theme["range"]}" stroke-width="1.2" opacity=".7"/>')
        if figure in ("p50", "p99"):
            out.append(text(left + PANEL - 66, y + 12, figure, theme["muted"], 13, "end"))
        out.append(text(left + PANEL, y + 12, f"{shown(median)} {unit}", theme["text"], 14, "end", 600 if ours else None))
        y += PAIR if figure == "p50" else ROW - 16
    return out


def draw(figures, theme):
    rows = [PANELS[:2], PANELS[2:]]
    heights = [max(height(bars) for *_, bars in row) for row in rows]
    total = MARGIN + sum(heights) + 28 + 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total:.0f}" width="{WIDTH}" height="{total:.0f}"'
        ' font-family="system-ui, -apple-system, \'Segoe UI\', Roboto, Helvetica, Arial, sans-serif" role="img">',
        "<title>CPU time per delivered event, latency, and memory per idle connection; less is better</title>",
        rect(0, 0, WIDTH, total, theme["page"], 8),
    ]
    top = MARGIN
    for row, row_height in zip(rows, heights):
        for column, entry in enumerate(row):
            out += panel(MARGIN + column * (PANEL + GUTTER), top, *entry, figures, theme)
        top += row_height + 28
    rounds = min(scenario["rounds"] for scenario in figures["scenarios"])
    note = f"Less is better. Bar: median of {rounds} rounds; thin line: their range. Measured {figures['measured']}."
    out.append(text(MARGIN, total - 18, note, theme["muted"], 13))
    out.append("</svg>\n")
    return "\n".join(out)


def main():
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    if len(sys.argv) == 2:
        figures = reduced(json.loads(pathlib.Path(sys.argv[1]).read_text()))
        measured = {scenario["name"] for scenario in figures["scenarios"]}
        missing = {bar[0] for *_, bars in PANELS for bar in bars} - measured
        if missing:
            sys.exit(f"{sys.argv[1]} has no scenario {', '.join(sorted(missing))}")
        FIGURES.write_text(written(figures))
    figures = json.loads(FIGURES.read_text())
    for name, theme in THEMES.items():
        file = HERE / f"figures-{name}.svg"
        file.write_text(draw(figures, theme))
        print(file)


if __name__ == "__main__":
    main()
