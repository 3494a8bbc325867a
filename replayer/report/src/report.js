// Fills the page from the results embedded in it. Everything shown is a number of those results, formatted.

import * as charts from "./charts.js";
import * as format from "./format.js";

const results = JSON.parse(document.getElementById("results").textContent);
const drawn = [];  // {chart, option} of the current view

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// --- the view: one trace, or all pooled -----------------------------------------------------------------

function tunablesOf(run) {
  return Object.entries(run.tunables).map(([name, value]) => `${name}=${value}`).join(",");
}

// The rows of a summary with their runs and a colour that is the same in every chart and view.
const colours = new Map();
// Rows of the same name bear in brackets what tells them apart (summary.cc).
function saysWhich(label, run) {
  const settings = `${run.settings.engine} ${run.settings.clock} ${run.settings.touch} ${run.settings.huge_pages} ${run.settings.cpu_count}`;
  return [settings, run.origin, run.library_path].some((text) => label.includes(` (${text})`));
}

function rowsOf(summary) {
  return summary.rows.map((row) => {
    if (!colours.has(row.label)) colours.set(row.label, charts.colourOf(colours.size));
    const twins = summary.rows.filter((other) => other.allocator === row.allocator && other.version === row.version && other.tunables === row.tunables);
    const runs = results.runs.filter((run) => run.error === null && run.allocator === row.allocator && run.version === row.version &&
      tunablesOf(run) === row.tunables && (summary.trace === null || run.trace === summary.trace) &&
      (twins.length === 1 || saysWhich(row.label, run)));
    return { ...row, run_count: row.runs, runs, colour: colours.get(row.label) };
  });
}

// --- table -----------------------------------------------------------------------------------------------

function bandText(band, formatValue) {
  const text = element("span", {}, formatValue(band.median));
  if (band.low !== band.high) text.append(element("small", { class: "band" }, `${formatValue(band.low)} to ${formatValue(band.high)}`));
  return text;
}

function cell(row, key, value, text, more = {}) {
  return element("td", { "data-row": row.label, "data-key": key, "data-value": value === null ? "" : String(value), ...more }, text);
}

// "+1.0 GiB/day (+0.9 GiB/day .. +1.1 GiB/day)", its band on a line of its own as those of other figures.
function growthText(row) {
  const [text, band] = row.growth.split(" (");
  if (!band) return text;
  return element("span", {}, text, element("small", { class: "band" }, band.replace(" .. ", " to ").replace(")", "")));
}

function growthTitle(row) {
  const window_days = row.growth_by_day ? 1 : row.steady_window_ns.median / 86400e9;
  const text = (value) => (row.growth_by_day ? format.growth(value) : format.bytes(value * window_days));
  return `95 % interval: ${text(row.growth_low_bytes_per_day)} to ${text(row.growth_high_bytes_per_day)}, ` +
    `seen over ${format.duration(row.steady_window_ns.median)}`;
}

function verdictTable(summary, rows) {
  const head = ["allocator", "verdict", "steady", summary.baseline ? `to ${summary.baseline}` : "ratio", "peak", "end", "growth", "live",
    "overhead", "faults", "system calls", "time"];
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...head.map((name) => element("th", {}, name)))));
  const body = table.appendChild(element("tbody"));
  for (const row of rows) {
    const dot = element("i", { class: "dot" });
    dot.style.background = row.colour;
    const name = element("th", { scope: "row" }, dot, row.label);
    const verdict = cell(row, "verdict", row.verdict, element("span", { class: `verdict ${row.verdict}` }, row.verdict));
    if (row.recorded_under) name.append(element("small", {}, " as recorded"));
    if (row.failed_runs > 0 && row.failed_runs < row.run_count) verdict.append(element("small", {}, ` ${row.failed_runs} of ${row.run_count} failed`));
    const line = body.appendChild(element("tr", {}, name, verdict));
    if (row.failed_runs === row.run_count) {
      line.append(element("td", { colspan: String(head.length - 2), class: "error" }, row.error || "failed"));
      continue;
    }
    line.append(
      cell(row, "steady_rss_bytes", row.steady_rss_bytes.median, bandText(row.steady_rss_bytes, format.bytes), { class: "strong" }),
      cell(row, "ratio", row.ratio, row.ratio === null ? "-" : `${row.ratio.toFixed(2)}x`),
      cell(row, "peak_rss_bytes", row.peak_rss_bytes.median, bandText(row.peak_rss_bytes, format.bytes)),
      cell(row, "end_rss_bytes", row.end_rss_bytes.median, format.bytes(row.end_rss_bytes.median)),
      cell(row, "growth_bytes_per_day", row.growth_bytes_per_day.median, growthText(row), { title: growthTitle(row) }),
      cell(row, "steady_live_bytes", row.steady_live_bytes.median, format.bytes(row.steady_live_bytes.median)),
      cell(row, "overhead_share", row.overhead_share.median, format.share(row.overhead_share.median)),
      cell(row, "minor_faults", row.minor_faults.median, format.count(row.minor_faults.median)),
      cell(row, "system_calls", row.system_calls.median, format.count(row.system_calls.median)),
      cell(row, "wall_ns", row.wall_ns.median, format.duration(row.wall_ns.median)));
  }
  return element("div", { class: "scroll" }, table);
}

// --- figures ---------------------------------------------------------------------------------------------

function save(name, blob) {
  const link = element("a", { download: name, href: URL.createObjectURL(blob) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// A chart follows its place: the layout moves when its neighbours arrive, and when a phone is turned.
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const changed = drawn.find(({ area }) => area === target);
    if (!changed || changed.width === target.clientWidth) continue;
    changed.width = target.clientWidth;
    changed.chart.resize();
    changed.chart.setOption({ grid: changed.option().grid });  // room for the legend's lines
  }
});

function svgText(chart) {
  const background = getComputedStyle(document.documentElement).getPropertyValue("--surface").trim();
  return chart.renderToSVGString({ useViewBox: true }).replace(/(<svg[^>]*>)/, `$1<rect width="100%" height="100%" fill="${background}"/>`);
}

function savePng(name, chart) {
  const image = new Image();
  image.onload = () => {
    const canvas = element("canvas", { width: String(2 * chart.getWidth()), height: String(2 * chart.getHeight()) });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(name, blob));
  };
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgText(chart))}`;
}

// A titled chart with buttons that save it. `option` is made anew for each theme.
function figure(into, name, title, note, option, height, level = "h2") {
  const area = element("div", { class: "chart", id: `chart-${name}` });
  area.style.height = `${height}px`;
  const svg = element("button", { type: "button", title: "Save as SVG" }, "SVG");
  const png = element("button", { type: "button", title: "Save as PNG" }, "PNG");
  into.append(element("figure", {}, element("figcaption", {}, element(level, {}, title), element("span", { class: "save" }, svg, png)),
    note ? element("p", { class: "note" }, note) : null, area));
  const chart = charts.draw(area, option());
  area.dataset.sums = JSON.stringify(charts.drawnSums(chart));
  svg.addEventListener("click", () => save(`${name}.svg`, new Blob([svgText(chart)], { type: "image/svg+xml" })));
  png.addEventListener("click", () => savePng(`${name}.png`, chart));
  drawn.push({ chart, area, option, width: area.clientWidth });
  sizes.observe(area);
}

function barHeight(rows, perRow) {
  return 60 + perRow * Math.max(1, rows.filter((row) => row.failed_runs < row.run_count).length);
}

function show(summary) {
  sizes.disconnect();
  for (const { chart } of drawn.splice(0)) chart.dispose();
  const main = document.querySelector("main");
  main.replaceChildren();
  const rows = rowsOf(summary);
  const trace = summary.trace === null ? null : results.traces[summary.trace];
  const look = charts.theme;

  main.append(sentence(summary, rows));
  main.append(element("section", {}, element("h2", {}, "Verdict"), verdictTable(summary, rows),
    summary.truth ? element("p", { class: "truth" }, summary.truth.sentence) : null));

  if (results.remarks.length > 0) {
    main.append(element("section", {}, element("h2", {}, "To keep in mind"),
      element("ul", { class: "remarks" }, ...results.remarks.map((remark) => element("li", {}, remark)))));
  }

  if (trace !== null) {
    figure(main, "over-time", "Resident memory over the recording's time",
      "Drag or pinch to zoom. The dotted line is the recorded process itself; the grey area is what the program had asked for.",
      () => charts.overTime(look(), rows, trace.truth, main.clientWidth - 40), 440);
  }
  const pair = main.appendChild(element("div", { class: "pair" }));
  figure(pair, "peak-steady", "Steady state and peak", "", () => charts.peakAndSteady(look(), rows), barHeight(rows, 56));
  figure(pair, "overhead", "Overhead over live bytes", "", () => charts.overhead(look(), rows), barHeight(rows, 56));
  if (rows.some((row) => row.runs.length > 1)) {
    const pooled = trace === null;
    if (pooled) relateToBaseline(summary, rows);
    figure(main, "distribution", pooled ? `Steady state of each trace, relative to ${summary.baseline}` : "Steady state over seeds",
      "Box: quartiles; whiskers: extremes; points: single runs.", () => charts.distribution(look(), rows, pooled), 320);
  }
  if (trace !== null) {
    const highest = Math.max(...rows.flatMap((row) => row.runs.map((run) => run.peak_rss_bytes)), 1);
    const grid = element("div", { class: "grid" });
    main.append(element("section", {}, element("h2", {}, "Each allocator by itself"),
      element("p", { class: "note" }, "Every seed over the live bytes; the tinted part is the steady window."), grid));
    rows.forEach((row, i) => {
      if (row.runs.length > 0) figure(grid, `trajectory-${i}`, row.label, "", () => charts.trajectory(look(), row, highest), 200, "h3");
    });
  }
  if (trace !== null) where(main, rows, look);
  main.append(provenance(summary));
  for (const { chart } of drawn) chart.resize();
}

// Where the memory is, of every allocator that was asked (--why).
function where(main, rows, look) {
  const asked = rows.filter((row) => row.runs.some((run) => run.heap_maps.length > 0));
  if (asked.length === 0) return;
  const runOf = (row) => row.runs.find((run) => run.heap_maps.length > 0);
  const peakOf = (run) => run.heap_maps.reduce((a, b) => (b.heap_rss_bytes > a.heap_rss_bytes ? b : a));
  const steadyOf = (run) => {
    const distance = (map) => Math.abs(map.heap_rss_bytes - run.steady_rss_bytes);
    const window = run.heap_maps.filter((map) => map.time_ns >= run.steady_start_ns);
    return window.reduce((a, b) => (a === null || distance(b) < distance(a) ? b : a), null) || run.heap_maps[run.heap_maps.length - 1];
  };
  const highest = Math.max(...asked.map((row) => peakOf(runOf(row)).heap_rss_bytes));
  const section = (title, note) => {
    const grid = element("div", { class: "grid" });
    main.append(element("section", {}, element("h2", {}, title), note, grid));
    return grid;
  };
  const legend = element("p", { class: "note parts" });
  for (const [, name, colour] of [...charts.kParts].reverse()) {
    const dot = element("i", { class: "dot" });
    dot.style.background = colour;
    legend.append(element("span", {}, dot, name));
  }
  const stacks = section("Where the memory is", legend);
  asked.forEach((row, i) => figure(stacks, `where-${i}`, row.label, "", () => charts.whereOverTime(look(), runOf(row), highest), 200, "h3"));

  const head = ["allocator", "at the", "RSS", ...charts.kParts.map(([, name]) => name)];
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...head.map((name) => element("th", {}, name)))));
  const body = table.appendChild(element("tbody"));
  for (const row of asked) {
    const run = runOf(row);
    for (const [moment, map] of [["peak", peakOf(run)], ["steady", steadyOf(run)], ["end", run.heap_maps[run.heap_maps.length - 1]]]) {
      const value = (key) => element("td", { "data-map-row": row.label, "data-moment": moment, "data-part": key, "data-value": String(map[key]) }, format.bytes(map[key]));
      body.append(element("tr", {}, element("th", { scope: "row" }, row.label), element("td", {}, moment), value("heap_rss_bytes"), ...charts.kParts.map(([key]) => value(key))));
    }
  }
  main.append(element("section", {}, element("h2", {}, "At the peak, in the steady state and at the end"), element("div", { class: "scroll" }, table)));

  const pages = section("How full the pages are in the steady state", element("p", { class: "note" }, "Memory in pages that hold live objects, by the share of the page that objects use. Bars on the left are fragmentation."));
  asked.forEach((row, i) => figure(pages, `occupancy-${i}`, row.label, "", () => charts.occupancy(look(), row, steadyOf(runOf(row))), 170, "h3"));

  const classes = element("table", {}, element("thead", {}, element("tr", {}, ...["allocator", "usable size", "objects", "live", "free in their pages"].map((name) => element("th", {}, name)))));
  const classBody = classes.appendChild(element("tbody"));
  for (const row of asked) {
    for (const its of steadyOf(runOf(row)).classes.slice(0, 5)) {
      classBody.append(element("tr", {}, element("th", { scope: "row" }, row.label), element("td", {}, format.bytes(its.usable_bytes)), element("td", {}, format.count(its.objects)),
        element("td", {}, format.bytes(its.live_bytes)), element("td", { class: "strong" }, format.bytes(its.partly_free_bytes))));
    }
  }
  main.append(element("section", {}, element("h2", {}, "Size classes that hold partly used pages in the steady state"), element("div", { class: "scroll" }, classes)));
  callSites(main, asked.map((row) => [row, steadyOf(runOf(row)).call_sites]).filter(([, sites]) => sites.length > 0));
}

// Which places in the program hold the partly used pages, where their stacks were recorded.
function callSites(main, rows) {
  if (rows.length === 0) return;
  const table = element("table", { class: "sites" }, element("thead", {}, element("tr", {}, ...["allocator", "called from", "samples", "live", "free in their pages"].map((name) => element("th", {}, name)))));
  const body = table.appendChild(element("tbody"));
  for (const [row, sites] of rows) {
    sites.slice(0, 8).forEach((site, i) => {
      const stack = element("details", {}, element("summary", {}, site.name), element("ol", {}, ...site.stack.map((frame) => element("li", {}, frame))));
      const value = (key, text, more = {}) => element("td", { "data-site-row": row.label, "data-site": String(i), "data-site-key": key, "data-value": String(site[key]), ...more }, text);
      body.append(element("tr", {}, element("th", { scope: "row" }, row.label), element("td", {}, stack), value("samples", format.count(site.samples)),
        value("live_bytes", format.bytes(site.live_bytes)), value("partly_free_bytes", format.bytes(site.partly_free_bytes), { class: "strong" })));
    });
  }
  main.append(element("section", {}, element("h2", {}, "Who holds partly used pages in the steady state"),
    element("p", { class: "note" }, "Places in the program that asked for the objects in them; unfold one for the calls that led there. Estimated from the stacks that were recorded: a place with few samples may be off by much."),
    element("div", { class: "scroll" }, table)));
}

// Each run of a pool against the baseline's runs of the same trace.
function relateToBaseline(summary, rows) {
  const base = new Map();
  const baseline = rows.find((row) => row.label === summary.baseline);
  for (const run of baseline ? baseline.runs : []) base.set(run.trace, [...(base.get(run.trace) || []), run.steady_rss_bytes]);
  for (const row of rows) {
    row.runs = row.runs.filter((run) => base.has(run.trace));
    for (const run of row.runs) {
      const values = base.get(run.trace);
      run.relative = run.steady_rss_bytes / (values.reduce((a, b) => a + b, 0) / values.length || 1);
    }
  }
}

// The answer in one sentence.
function sentence(summary, rows) {
  const good = rows.filter((row) => row.failed_runs < row.run_count);
  const best = good.reduce((a, b) => (a === null || b.steady_rss_bytes.median < a.steady_rss_bytes.median ? b : a), null);
  const paragraph = element("p", { class: "answer" });
  if (best === null) {
    paragraph.append("Every replay failed.");
    return paragraph;
  }
  paragraph.append(element("b", {}, best.label), " needs the least memory: ", element("b", {}, format.bytes(best.steady_rss_bytes.median)), " in the steady state");
  const recorded = good.find((row) => row.recorded_under && row !== best);
  if (recorded) {
    const saving = 1 - best.steady_rss_bytes.median / recorded.steady_rss_bytes.median;
    paragraph.append(`, ${(saving * 100).toFixed(0)} % less than ${recorded.label}, under which it was recorded`);
  }
  const growing = good.filter((row) => row.verdict === "bloating" || row.verdict === "growing").map((row) => row.label);
  const by_day = good.every((row) => row.growth_by_day);
  if (growing.length > 0) paragraph.append(`. Still growing at the end: ${growing.join(", ")}.`);
  else paragraph.append(by_day ? ". None is still growing at the end." : ". The recording is too short to say whether any grows by the day.");
  return paragraph;
}

function quoted(word) {
  return /^[A-Za-z0-9_\-+=./:,@%]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function provenance(summary) {
  const list = element("dl");
  const add = (name, value) => value !== "" && list.append(element("dt", {}, name), element("dd", {}, value));
  const traces = summary.trace === null ? results.traces : [results.traces[summary.trace]];
  for (const trace of traces) {
    add("recording", `${trace.path}: ${trace.program || "a program"}, ${format.count(trace.events)} events in ${format.duration(trace.duration_ns)}` +
      `${trace.recorded_under ? `, recorded under ${trace.recorded_under}` : ""}${trace.complete ? "" : ", not finished in good order"}`);
    add("digest", trace.digest);
  }
  const runs = results.runs.filter((run) => summary.trace === null || run.trace === summary.trace);
  const settings = [...new Set(runs.filter((run) => run.error === null).map((run) => `engine ${run.settings.engine}, clock ${run.settings.clock}, touch ${run.settings.touch}, huge pages ${run.settings.huge_pages}, ${run.settings.cpu_count} CPUs`))];
  add("settings", settings.join("; "));
  add("seeds", [...new Set(runs.map((run) => run.seed))].join(", "));
  add("machine", `${results.machine}, Linux ${results.kernel}`);
  add("heaptape", results.heaptape_version);
  for (const library of new Set(runs.map((run) => `${run.allocator} ${run.version}: ${run.library_path || "not loaded"}${run.build_id ? `, build id ${run.build_id}` : ""}${run.origin ? ` (${run.origin})` : ""}`))) add("library", library);
  return element("section", {}, element("h2", {}, "How to repeat it"),
    element("pre", {}, element("code", {}, results.command.map(quoted).join(" "))), list,
    element("p", { class: "note" }, "Memory is heap RSS: the resident set of the replay less what the replayer itself needs. Units are powers of 1024. Growth is the Theil-Sen slope over the steady window with its 95 % interval; ± means that the interval holds no growth at all. The verdicts and every other number are defined in NUMBERS.md of heaptape."));
}

// --- theme and start ---------------------------------------------------------------------------------------

function applyTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  for (const { chart, option } of drawn) chart.setOption(option(), { notMerge: true });
}

function start() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const toggle = document.getElementById("theme");
  toggle.addEventListener("click", () => {
    const current = document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
    applyTheme(current === "dark" ? "light" : "dark");
  });
  dark.addEventListener("change", () => applyTheme(""));
  addEventListener("beforeprint", () => drawn.forEach(({ chart }) => chart.resize()));

  const program = [...new Set(results.traces.map((trace) => trace.program).filter((name) => name))].join(", ");
  const title = `${program || "Memory"} under ${new Set(results.summaries.flatMap((summary) => summary.rows.map((row) => row.label))).size} allocators`;
  document.title = title;
  document.querySelector("h1").textContent = title;
  const select = document.getElementById("trace");
  results.summaries.forEach((summary, i) => select.append(element("option", { value: String(i) }, summary.title)));
  select.hidden = results.summaries.length < 2;
  const initial = Math.max(results.summaries.length - 1, 0);
  select.value = String(initial);
  select.addEventListener("change", () => show(results.summaries[Number(select.value)]));
  if (results.summaries.length > 0) show(results.summaries[initial]);
  document.documentElement.dataset.ready = "yes";
}

start();
