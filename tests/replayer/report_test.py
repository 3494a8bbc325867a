"""The HTML report in headless Chromium: it draws, reports no error, loads nothing, and its numbers are the JSON's.

Usage: report_test.py SAMPLE_RESULTS HEAPTAPE
"""

import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--enable-logging=stderr"]

# Runs after the page's own script: presses every button once, points at the first chart and writes down what only a browser knows.
PROBE = """
<script>
  const report = {};
  report.overflow = document.scrollingElement.scrollWidth - innerWidth;
  report.hacked = window.hacked === true;
  const before = getComputedStyle(document.body).backgroundColor;
  document.getElementById("theme").click();
  report.themes = [before, getComputedStyle(document.body).backgroundColor];
  const saved = [];
  HTMLAnchorElement.prototype.click = function () { saved.push(this.download); };
  for (const button of document.querySelectorAll(".save button")) button.click();
  report.resources = performance.getEntriesByType("resource").map((entry) => entry.name).filter((name) => !name.startsWith("data:") && !name.startsWith("blob:"));
  const buttons = document.querySelectorAll(".save button").length;
  const chart = document.getElementById("chart-over-time");
  if (chart) {
    const place = chart.getBoundingClientRect();
    const at = { clientX: place.left + 0.43 * place.width, clientY: place.top + place.height / 2, bubbles: true };
    chart.firstElementChild.dispatchEvent(new MouseEvent("mousemove", at));
  }
  let waits = 0;
  const timer = setInterval(() => {
    if (saved.length < buttons && ++waits < 150) return;
    clearInterval(timer);
    report.saved = saved;
    report.hover = [...document.querySelectorAll("#chart-over-time .tip-row span")].map((name) => name.textContent);
    document.documentElement.dataset.probe = JSON.stringify(report);
  }, 100);
</script>
"""


class Page(html.parser.HTMLParser):
    """Collects what the page says in data attributes, and counts what is drawn in each chart."""

    def __init__(self):
        super().__init__()
        self.root = {}
        self.cells = []
        self.charts = {}
        self.chart = None
        self.options = 0
        self.maps = []
        self.sites = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "html":
            self.root = attributes
        elif tag == "option":
            self.options += 1
        elif attributes.get("id", "").startswith("chart-"):
            self.chart = attributes["id"][len("chart-"):]
            self.charts[self.chart] = {"sums": json.loads(attributes["data-sums"]), "paths": 0}
        elif tag == "path" and self.chart:
            self.charts[self.chart]["paths"] += 1
        elif "data-site" in attributes:
            self.sites.append((attributes["data-site-row"], int(attributes["data-site"]), attributes["data-site-key"], attributes["data-value"]))
        elif "data-part" in attributes:
            self.maps.append((attributes["data-map-row"], attributes["data-moment"], attributes["data-part"], attributes["data-value"]))
        elif "data-key" in attributes:
            self.cells.append((attributes["data-row"], attributes["data-key"], attributes["data-value"]))


def look_at(text, folder, width=1200, dark=False):
    page_file = os.path.join(folder, "page.html")
    with open(page_file, "w") as file:
        file.write(text.replace("</body>", PROBE + "</body>"))
    profile = tempfile.mkdtemp(dir=folder)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or sys.exit("chromium is needed: apt-get install chromium")
    command = [chromium, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},2000", "--virtual-time-budget=20000", "--dump-dom"]
    if dark:
        command.append("--force-dark-mode")
    done = subprocess.run(command + ["file://" + page_file], capture_output=True, text=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console, console
    page = Page()
    page.feed(done.stdout)
    assert page.root.get("data-ready") == "yes", done.stderr[-2000:]
    page.probe = json.loads(page.root["data-probe"])
    assert page.probe["resources"] == [], page.probe["resources"]
    assert not page.probe["hacked"], "text of the results ran as a script"
    assert page.probe["overflow"] <= 0, f"{page.probe['overflow']} pixels too wide at {width}"
    assert len(set(page.probe["themes"])) == 2, "the button does not change the theme"
    return page


def close(a, b):
    return abs(a - b) <= 1e-9 * max(abs(a), abs(b), 1)


def check_table(page, summary):
    rows = {row["label"]: row for row in summary["rows"]}
    seen = set()
    for label, key, value in page.cells:
        expected = rows[label][key]
        if isinstance(expected, dict):
            expected = expected["median"]
        seen.add(label)
        if expected is None or isinstance(expected, str):
            assert value == (expected or ""), (label, key, value, expected)
        else:
            assert close(float(value), expected), (label, key, value, expected)
    assert seen == set(rows), "a row is missing"


def check_charts(page, results, summary):
    for name, chart in page.charts.items():
        assert chart["paths"] >= 2, f"{name} draws nothing"
    good = [row for row in summary["rows"] if row["failed_runs"] < row["runs"]]
    bars = page.charts["peak-steady"]["sums"]
    assert close(bars["steady"], sum(row["steady_rss_bytes"]["median"] for row in good))
    assert close(bars["peak"], sum(row["peak_rss_bytes"]["median"] for row in good))
    assert close(page.charts["overhead"]["sums"]["overhead"], sum(row["overhead_share"]["median"] for row in good))
    if summary["trace"] is None:
        return
    lines = page.charts["over-time"]["sums"]
    for row in good:
        runs = [run for run in results["runs"] if run["trace"] == summary["trace"] and
                (run["allocator"], run["version"]) == (row["allocator"], row["version"])]
        assert close(lines[row["label"]], sum(runs[0]["series"]["heap_rss_bytes"])), row["label"]
    assert close(lines["live bytes"], sum(results["runs"][0]["series"]["live_bytes"]))
    hovered = [row["label"] for row in good] + ["live bytes", "recorded process"]
    assert sorted(page.probe["hover"]) == sorted(hovered), page.probe["hover"]
    assert close(lines["recorded process"], sum(results["traces"][0]["truth"]["heap_rss_bytes"]))
    assert close(page.charts["distribution"]["sums"]["runs"], sum(run["steady_rss_bytes"] for run in results["runs"]))
    assert sum(name.startswith("trajectory-") for name in page.charts) == len(good)
    assert set(page.probe["saved"]) == {f"{name}.{kind}" for name in page.charts for kind in ("svg", "png")}, page.probe["saved"]


def check_maps(page, results):
    moments = {}
    for label, moment, part, value in page.maps:
        moments.setdefault((label, moment), {})[part] = int(value)
    assert len(moments) == 9, sorted(moments)

    def steady(run):
        window = [each for each in run["heap_maps"] if each["time_ns"] >= run["steady_start_ns"]]
        return min(window, key=lambda each: abs(each["heap_rss_bytes"] - run["steady_rss_bytes"]))
    for (label, moment), parts in moments.items():
        run = next(run for run in results["runs"] if label.startswith(f"{run['allocator']} {run['version']}"))
        maps = run["heap_maps"]
        wanted = {"end": maps[-1], "steady": steady(run), "peak": max(maps, key=lambda each: each["heap_rss_bytes"])}[moment]
        assert parts == {key: wanted[key] for key in parts}, (label, moment)
        assert sum(value for part, value in parts.items() if part != "heap_rss_bytes") == parts["heap_rss_bytes"]
    assert len(page.sites) == 3 * 2 * 3, page.sites
    for label, place, key, value in page.sites:
        run = next(run for run in results["runs"] if label.startswith(f"{run['allocator']} {run['version']}"))
        assert int(value) == steady(run)["call_sites"][place][key], (label, place, key)
    first = next(run for run in results["runs"] if run["allocator"] == "mimalloc")
    assert close(page.charts["where-0"]["sums"]["live, requested"], sum(each["live_bytes"] for each in first["heap_maps"]))


def main():
    sample, heaptape = sys.argv[1:3]
    folder = tempfile.mkdtemp(prefix="heaptape-report-")
    try:
        def report(results):
            source = os.path.join(folder, "results.json")
            json.dump(results, open(source, "w"))
            page = subprocess.run([heaptape, "report", source, "-o", "-"], check=True, capture_output=True, text=True).stdout
            assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page), "the page refers to another file"
            embedded = re.search(r'<script type="application/json" id="results">(.*?)</script>', page, re.S).group(1)
            assert json.loads(embedded)["runs"] == results["runs"], "the embedded results are others"
            return page

        def sampled(kind):
            return json.loads(subprocess.run([sample, kind], check=True, capture_output=True).stdout)

        one = sampled("one")
        text = report(one)
        for width, dark in [(1200, False), (500, True)]:
            page = look_at(text, folder, width, dark)
            check_table(page, one["summaries"][0])
            check_charts(page, one, one["summaries"][0])
            check_maps(page, one)
        print(f"one trace: {len(page.cells)} numbers and {len(page.charts)} charts equal to the JSON")

        fleet = sampled("fleet")
        page = look_at(report(fleet), folder)
        check_table(page, fleet["summaries"][-1])
        check_charts(page, fleet, fleet["summaries"][-1])
        assert page.options == 3, "two traces and their pool to choose from"
        print(f"fleet: {len(page.cells)} numbers and {len(page.charts)} charts equal to the JSON")

        attack = "</script><script>window.hacked = true</script><img src=x onerror='window.hacked = true'>"
        one["traces"][0]["program"] = attack
        for run in one["runs"]:
            run["version"] += attack
            run["notes"] = [attack]
        look_at(report(one), folder)
        print("text of the results stays text")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


main()
