"""How bench/scorecard shows a result: as text, as the README's block, against a baseline."""

import json
import re

def recorder_names(result):
    return [name for name in result["recorders"] if name != "bare"]


def cell(value, form):
    return "" if value is None else form.format(value)


def mib(value):
    return "" if value is None else f"{value / 2**20:+.1f} MiB"


def tables(result):
    """(title, rows) of all tables; the first row is the heading."""
    names = recorder_names(result)
    cost = [["program", "events", "lost"] + [f"CPU, {name}" for name in names] + [f"ns/event, {name}" for name in names]
            + [f"RSS, {name}" for name in names]]
    beside = [["program"] + [f"bytes/event, {name}" for name in names] + ["writer ns/event", "writer RSS", "replay ns/event"]
              + [f"replay ns/event, {name}" for name in result.get("replaying_peers", [])] + ["twice the same", "peak, replay to live"]]
    for row in result["programs"]:
        recorders, replayed = row["recorders"], row["replay"]
        figures = [recorders.get(name, {}) for name in names]
        cost.append([row["program"], f"{row['events'] / 1e6:.2f} M", str(row["events_lost"])]
                    + [cell(figure.get("cpu_ratio"), "{:.2f}x") for figure in figures]
                    + [cell(figure.get("added_ns_per_event"), "{:+.1f}") for figure in figures]
                    + [mib(figure.get("added_rss_bytes")) for figure in figures])
        own = recorders["heaptape"]
        beside.append([row["program"]] + [cell(figure.get("bytes_per_event"), "{:.3f}") for figure in figures]
                      + [cell(own.get("helper_ns_per_event"), "{:.0f}"),
                         "" if own.get("helper_rss_bytes") is None else f"{own['helper_rss_bytes'] / 2**20:.1f} MiB"]
                      + ([replayed["error"]] + [""] * 2 if "error" in replayed else
                         [f"{replayed['ns_per_event']:.1f}"]
                         + [cell(recorders.get(name, {}).get("replay_ns_per_event"), "{:.1f}") for name in result.get("replaying_peers", [])]
                         + ["yes" if replayed["deterministic"] else "NO", cell(replayed.get("peak_against_live"), "{:.3f}")]))
    found = []
    if result["programs"]:
        found = [("The recorded program: CPU time, added CPU time and added peak memory against the bare run", cost),
                 ("The recordings, the writer beside the program, and replaying them", beside)]
    if result.get("engine"):
        found.append(("Replaying against a bare loop of the same calls, CPU ns per event",
                      [["allocator", "bare loop", "replay", "added"]]
                      + [[row["allocator"], f"{row['bare']:.1f}", f"{row['engine']:.1f}", f"{row['engine'] - row['bare']:+.1f}"]
                         for row in result["engine"]["allocators"]]))
    if result.get("fidelity"):
        found.append(("Memory of live programs against the replay of one recording made under glibc",
                      [["program", "allocator", "peak, live", "peak, replay", "end, live", "end, replay"]]
                      + [[row["program"], row["allocator"]] + [f"{row[key] / 2**20:.1f} MiB" for key in
                                                               ("live_peak", "replay_peak", "live_end", "replay_end")]
                         for row in result["fidelity"]]))
    return found


def remarks(result):
    lines = []
    if result.get("engine"):
        lines.append(f"With an allocator that does nothing {result['engine']['null_million_events_per_second']:.1f} million events a second "
                     "are replayed from the compressed file.")
    if "relay" in [row["program"] for row in result["programs"]]:
        relay = next(row for row in result["programs"] if row["program"] == "relay")
        if relay.get("bare_spread") is not None:
            lines.append(f"Relays run side by side in one network instead of in rounds; two bare ones differed by {relay['bare_spread']:.1%} in CPU time.")
    lines += [f"Left out: {sentence}." for sentence in result["left_out"]]
    return lines


def as_text(result):
    parts = []
    for title, rows in tables(result):
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        parts.append(title + "\n\n" + "".join("  ".join(
            text.ljust(width) if i == 0 else text.rjust(width) for i, (text, width) in enumerate(zip(row, widths))).rstrip() + "\n" for row in rows))
    return "\n".join(parts + ["".join(line + "\n" for line in remarks(result))])


def rounds(result):
    """That programs ran in: fewer of those that took long."""
    numbers = [len(row["recorders"]["heaptape"]["cpu_ratio_of_rounds"]) for row in result["programs"] if row["program"] != "relay"]
    return str(max(numbers, default=0)) if len(set(numbers)) < 2 else f"{min(numbers)} to {max(numbers)}"


def as_markdown(result):
    command = "bench/scorecard" + ("" if result["scale"] == "full" else " --" + result["scale"])
    parts = [f"Printed by `{command}`: medians of {rounds(result)} interleaved rounds on {result['cpus']} CPUs "
             f"({result['machine']}), load average {result['load_average']:.1f} before the run."]
    for title, rows in tables(result):
        rows = [rows[0], ["---"] + ["---:"] * (len(rows[0]) - 1)] + rows[1:]
        parts.append(f"{title}:\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows))
    parts += remarks(result)
    return "\n\n".join(parts) + "\n"


def mark_block(text, name, block):
    """The text with `block` in the place of what stands between the marks of that name."""
    marks = re.compile(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if len(marks.findall(text)) != 1:
        raise ValueError(f"needs the lines <!-- {name}: ... --> and <!-- /{name} --> once, where the block shall stand")
    return marks.sub(lambda match: match.group(1) + block + match.group(2), text)


# Ratios whose growth is a slide. What is above `floor` only says something: less is noise, or nothing.
BOUNDED = {"cpu_ratio": 0.35, "call_cpu_ratio": 1.0, "bytes_per_event": 0.25}
MOST_ADDED_RSS_BYTES = 4 << 20


def check_counts(result):
    """Sentences for what is wrong on any machine, however slow or busy: losses, calls that are missing, replays that differ."""
    slides = []
    for row in result["programs"]:
        name, own = row["program"], row["recorders"]["heaptape"]
        if row["events_lost"] or not row["complete"]:
            slides.append(f"{name}: {row['events_lost']} events lost, complete: {row['complete']}")
        # The process makes a few calls more before and after its own.
        if row["calls_of_program"] is not None and not 0 <= row["events"] - row["calls_of_program"] <= 1000:
            slides.append(f"{name}: {row['events']} calls recorded of {row['calls_of_program']} made")
        if "error" in row["replay"]:
            slides.append(f"{name}: replay failed: {row['replay']['error']}")
        elif not row["replay"]["deterministic"]:
            slides.append(f"{name}: two replays differ")
        # Relays are not the same twice: what one holds more is not the recorder's.
        if name != "relay" and own["added_rss_bytes"] > MOST_ADDED_RSS_BYTES:
            slides.append(f"{name}: {own['added_rss_bytes']} bytes added to the resident set, at most {MOST_ADDED_RSS_BYTES}")
    if not result.get("engine"):
        slides.append("replay against a bare loop: was not measured")
    return slides


def check(result, baseline):
    """Sentences for what is out of its bounds. Never wall time: ratios of CPU time, bytes, counts."""
    slides = check_counts(result)
    bounds = baseline["scales"].get(result["scale"], {})
    for row in result["programs"]:
        name, own = row["program"], row["recorders"]["heaptape"]
        for key, bound in bounds.get(name, {}).items():
            most = bound["value"] * (1 + bound["tolerance"])
            if own.get(key) is None:
                slides.append(f"{name}: {key} was not measured")
            elif own[key] > most:
                slides.append(f"{name}: {key} is {own[key]:.3f}, baseline {bound['value']:.3f}, at most {most:.3f}")
    for name in bounds.keys() - {row["program"] for row in result["programs"]}:
        slides.append(f"{name}: was not measured")
    return slides


def with_baseline(baseline, result):
    """The baseline with this result's bounds in the place of those of the same scale."""
    bounds = {}
    for row in result["programs"]:
        own = row["recorders"]["heaptape"]
        # Short runs are mostly starting up: their whole time says nothing. A few bytes a block say nothing either.
        keys = [key for key in BOUNDED if own.get(key) is not None and not (key == "bytes_per_event" and own[key] < 0.05)
                and key != ("cpu_ratio" if result["scale"] == "smoke" else "call_cpu_ratio")]
        bounds[row["program"]] = {key: {"value": round(own[key], 4), "tolerance": BOUNDED[key]} for key in keys}
    return {**baseline, "scales": {**baseline.get("scales", {}), result["scale"]: bounds}}


def to_json(value):
    return json.dumps(value, indent=1) + "\n"
