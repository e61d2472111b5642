"""What a run measured, as Markdown and as HTML with charts."""

import html as escape
import math

COLOURS = ["#0b6e99", "#d9730d", "#6940a5", "#448361", "#9f6b53", "#c14c8a"]
# What is told of each peer: title, unit, how to get it from what the peer printed.
FIGURES = [
    ("Time per event", "µs", lambda told: told["ns_per_event"][1] / 1e3),
    ("Build of the rule set", "s", lambda told: told["build_seconds"]),
    ("Peak memory of the process", "MiB", lambda told: told["peak_rss_bytes"] / 2**20),
]
# What is told of each program from topic to topic: title, unit, how to get it from a line of `sluice bench pipeline`.
PIPED = [
    ("CPU seconds per million events", "s", lambda line: line["cpu_seconds_per_million"][1]),
    ("CPU seconds per million events, second half of each run", "s", lambda line: line["warm_cpu_seconds_per_million"]),
    ("events a second", "/s", lambda line: line["events_per_second"][1]),
    ("resident memory at the end", "MiB", lambda line: line["resident_mib"][1]),
]
# Quantiles of latency that have a line in the chart.
QUANTILES = ["p50", "p90", "p99", "p99.9"]


def peers(told):
    return list(dict.fromkeys(peer for result in told["results"] for peer in result["peers"]))


def unequal(told):
    """Where a peer found another number of matches than the first."""
    lines = []
    for result in told["results"]:
        totals = {peer: found["matches"] for peer, found in result["peers"].items() if "matches" in found}
        if len(set(totals.values())) > 1:
            lines.append(f"{result['rules']} rules: " + ", ".join(f"{peer} {total}" for peer, total in totals.items()))
    for broker, runs in by_broker(told["end_to_end"]).items():
        if len({total for line in runs for total in line["delivered"]}) > 1:
            lines.append(f"end to end, {broker}: " + ", ".join(f"{line['run']} {line['delivered']}" for line in runs))
    return lines


def short(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(told, figure):
    """Rows of cells: by number of rules, one column a peer."""
    _, _, get = figure
    rows = [["rules", *peers(told)]]
    for result in told["results"]:
        cells = [result["peers"].get(peer, {}) for peer in peers(told)]
        rows.append([f"{result['rules']:,}", *("refused or failed" if "failed" in cell else short(get(cell)) for cell in cells)])
    return rows


def rows_of(cells):
    return ["| " + " | ".join(row) + " |" for row in cells]


def markdown(told):
    machine = told["machine"]
    lines = [f"# Rules at scale, {machine['when']}", "", f"`{told['command']}`, on {machine['processors']} processors, {machine['system']}.", ""]
    for title, rows in sections(told):
        head, *rest = rows
        lines += [f"## {title}", "", *rows_of([head]), "|---" * len(head) + "|", *rows_of(rest), ""]
    if told["results"]:
        lines += ["## Matches", ""]
    for result in told["results"]:
        totals = ", ".join(f"{peer} {found['matches']}" for peer, found in result["peers"].items() if "matches" in found)
        lines.append(f"- {result['rules']:,} rules: {totals}")
    for broker, runs in by_broker(told["end_to_end"]).items():
        delivered = sorted({total for line in runs for total in line["delivered"]})
        lines += [f"## Delivered, {broker}", "", f"- of {runs[0]['events']:,} events: {' or '.join(map(str, delivered))} in each run"]
    lines += [f"- **differ** at {line}" for line in unequal(told)]
    lines += ["", *notes(told), ""]
    return "\n".join(lines)


def sections(told):
    """Titles and tables of everything that was measured."""
    if told["results"]:
        for figure in FIGURES:
            yield f"{figure[0]}, {figure[1]}, by number of rules", table(told, figure)
    for broker, runs in by_broker(told["end_to_end"]).items():
        for figure in PIPED:
            yield piped_title(broker, figure), piped_table(runs, figure)
    for broker, runs in by_broker(told["latency"]).items():
        yield latency_title(broker, runs), latency_table(runs)


def by_broker(lines):
    found = {}
    for line in lines:
        found.setdefault(line["broker"], []).append(line)
    return found


def piped_title(broker, figure):
    return f"End to end, {broker}: {figure[0]}, by number of rules"


def piped(runs, figure):
    """Programs, each with its values by number of rules; what has no rules has one value for all."""
    counts = sorted({line["rules"] for line in runs} - {0})
    found = {}
    for line in runs:
        for count in [line["rules"]] if line["rules"] else counts:
            found.setdefault(line["program"], {})[count] = figure[2](line)
    return counts, found


def piped_table(runs, figure):
    """Rows of cells: by number of rules, one column a program."""
    counts, found = piped(runs, figure)
    rows = [["rules", *found]]
    for count in counts:
        values = [line[count] for line in found.values()]
        rows.append([f"{count:,}", *("" if value is None else short(value) for value in values)])
    return rows


def piped_chart(broker, runs, figure):
    _, found = piped(runs, figure)
    lines = {program: [point for point in values.items() if point[1]] for program, values in found.items()}
    return plot(piped_title(broker, figure), figure[1], {program: line for program, line in lines.items() if line})


def latency_title(broker, runs):
    return f"Latency by offered rate, {broker}, {runs[0]['rules']:,} rules, {runs[0]['tenths_delivered']} in ten delivered"


def latency_table(runs):
    """Rows of cells, one a run; latencies count from the moments that events were due."""
    quantiles = list(runs[0]["latency_ms"])
    rows = [["", "offered/s", "achieved/s", *(f"{quantile} ms" for quantile in quantiles), "% of a core", "RSS MiB", "lost"]]
    for run in runs:
        cells = [run["latency_ms"][quantile] for quantile in quantiles]
        cells = [*cells, run["cpu_percent"], run["resident_mib"]]
        shown = ["" if cell is None else short(cell) for cell in cells]
        rows.append([run["run"], f"{run['offered_per_second']:,}", f"{run['achieved_per_second']:,.0f}", *shown, f"{run['lost']:,}"])
    return rows


def latency_chart(title, runs):
    lines = {}
    for run in runs:
        for quantile in QUANTILES:
            if run["run"] == "sluice" and run["latency_ms"][quantile]:
                lines.setdefault(quantile, []).append((run["offered_per_second"], run["latency_ms"][quantile]))
    return plot(title, "ms", lines)


def notes(told):
    lines = [f"- {peer} was not measured: {why}" for peer, why in told["missing"].items()]
    for result in told["results"]:
        for peer, found in result["peers"].items():
            if "failed" in found:
                lines.append(f"- {peer} at {result['rules']:,} rules: {found['failed']}")
    return lines


def chart(told, figure):
    title, unit, get = figure
    lines = {}
    for result in told["results"]:
        for peer, found in result["peers"].items():
            if "failed" not in found and get(found) > 0:
                lines.setdefault(peer, []).append((result["rules"], get(found)))
    return plot(title, unit, lines)


def plot(title, unit, lines):
    """Named lines of points, both axes logarithmic."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    wide, high, left, bottom = 640, 320, 70, 40
    bounds = [(math.floor(math.log10(min(axis))), max(math.ceil(math.log10(max(axis))), math.floor(math.log10(min(axis))) + 1)) for axis in zip(*points)]

    def place(x, y):
        across, up = ((math.log10(value) - low) / (top - low) for value, (low, top) in zip((x, y), bounds))
        return left + across * (wide - left - 20), high - bottom - up * (high - bottom - 20)

    parts = [f'<svg viewBox="0 0 {wide} {high + 20 * len(lines)}" width="{wide}" role="img" aria-label="{title}">']
    for exponent in range(bounds[0][0], bounds[0][1] + 1):
        x, _ = place(10**exponent, 10 ** bounds[1][0])
        parts.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="20" y2="{high - bottom}" stroke="#ddd"/><text x="{x:.0f}" y="{high - bottom + 18}" text-anchor="middle">{10**exponent:,}</text>')
    for exponent in range(bounds[1][0], bounds[1][1] + 1):
        _, y = place(10 ** bounds[0][0], 10**exponent)
        parts.append(f'<line x1="{left}" x2="{wide - 20}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/><text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{10**exponent:,g} {unit}</text>')
    for number, (peer, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in (place(*point) for point in line)]
        y = high + 20 * number
        parts.append(f'<rect x="{left}" y="{y - 9}" width="12" height="12" fill="{colour}"/><text x="{left + 18}" y="{y + 2}">{escape.escape(peer)}</text>')
    return "".join(parts) + "</svg>"


def html(told):
    machine = told["machine"]
    body = [f"<h1>Rules at scale, {machine['when']}</h1><p><code>{escape.escape(told['command'])}</code>, on {machine['processors']} processors, {escape.escape(machine['system'])}.</p>"]
    charts = [chart(told, figure) for figure in FIGURES] if told["results"] else []
    charts += [piped_chart(broker, runs, figure) for broker, runs in by_broker(told["end_to_end"]).items() for figure in PIPED]
    charts += [latency_chart(latency_title(broker, runs), runs) for broker, runs in by_broker(told["latency"]).items()]
    for (title, (head, *rows)), drawn in zip(sections(told), charts):
        body.append(f"<h2>{escape.escape(title)}</h2>{drawn}<table><tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>")
        body += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
        body.append("</table>")
    body.append("<ul>" + "".join(f"<li>{escape.escape(note.removeprefix('- '))}</li>" for note in notes(told)) + "</ul>")
    style = "body{font:15px system-ui;max-width:60em;margin:2em auto;padding:0 1em}td,th{padding:.2em .8em;text-align:right}svg text{font:12px system-ui}"
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Rules at scale</title><style>{style}</style>{"".join(body)}</html>\n'
