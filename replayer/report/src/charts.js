// The charts of the report: each function takes rows or runs of the results and returns ECharts options.

import { BarChart, BoxplotChart, LineChart, ScatterChart } from "echarts/charts";
import {
  AriaComponent, DataZoomComponent, GridComponent, LegendComponent, MarkAreaComponent, TooltipComponent,
} from "echarts/components";
import * as echarts from "echarts/core";
import { SVGRenderer } from "echarts/renderers";
import * as format from "./format.js";

echarts.use([
  AriaComponent, BarChart, BoxplotChart, DataZoomComponent, GridComponent, LegendComponent, LineChart,
  MarkAreaComponent, ScatterChart, SVGRenderer, TooltipComponent,
]);

// Colours that stay apart for colour-blind readers and on both backgrounds (after Okabe and Ito).
const kColours = ["#2f7ed8", "#e0861a", "#1a9e77", "#c64f9a", "#8a6fe0", "#b8860b", "#d14b3f", "#3aa7b5", "#7a8b3c", "#9a6a4f"];

export function colourOf(index) {
  return kColours[index % kColours.length];
}

export function theme() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  return { text: value("--text"), muted: value("--muted"), line: value("--line"), surface: value("--surface") };
}

function seconds(ns) {
  return ns / 1e9;
}

function axisTime(value) {
  return value === 0 ? "0" : format.duration(value * 1e9).replace(/ 0 (s|min|h)$/, "").replace(".0 s", " s");
}

// Text goes in as text: names come from files and libraries.
function tooltipRows(title, rows) {
  const box = document.createElement("div");
  const head = box.appendChild(document.createElement("div"));
  head.textContent = title;
  head.className = "tip-title";
  for (const { colour, name, value } of rows) {
    const row = box.appendChild(document.createElement("div"));
    row.className = "tip-row";
    const dot = row.appendChild(document.createElement("i"));
    dot.style.background = colour;
    row.appendChild(document.createElement("span")).textContent = name;
    row.appendChild(document.createElement("b")).textContent = value;
  }
  return box;
}

function base(look) {
  return {
    animation: false,
    aria: { enabled: true },
    textStyle: { color: look.text, fontFamily: "system-ui, 'Liberation Sans', Roboto, sans-serif" },
    tooltip: { backgroundColor: look.surface, borderColor: look.line, textStyle: { color: look.text }, confine: true },
  };
}

// The step that divides `highest` into about `parts`, of those people count in.
function step(highest, parts, steps) {
  return steps.find((candidate) => highest / candidate <= parts) || steps[steps.length - 1];
}

const kByteSteps = [];
for (let unit = 1; unit <= 2 ** 60; unit *= 1024) for (const part of [1, 2, 5, 10, 20, 50, 100, 256, 512]) kByteSteps.push(unit * part);
const kSecondSteps = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800,
  3600, 7200, 10800, 21600, 43200, 86400, 172800, 432000, 864000, 1728000, 4320000, 8640000];

function bytesAxis(look, highest, parts = 5, extra = {}) {
  const interval = step(Math.max(highest, 1), parts, kByteSteps);
  return {
    type: "value",
    min: 0,
    max: Math.ceil(Math.max(highest, 1) / interval) * interval,
    interval,
    axisLabel: { formatter: format.axisBytes, color: look.muted, hideOverlap: true },
    splitLine: { lineStyle: { color: look.line } },
    ...extra,
  };
}

function timeAxis(look, duration, parts, extra = {}) {
  return {
    type: "value",
    min: 0,
    max: duration,
    interval: step(duration, parts, kSecondSteps),
    axisLabel: { formatter: axisTime, color: look.muted, hideOverlap: true },
    axisLine: { lineStyle: { color: look.line } },
    splitLine: { show: false },
    ...extra,
  };
}

function line(name, colour, points, extra = {}) {
  return {
    name, type: "line", data: points, showSymbol: false, sampling: "lttb",
    lineStyle: { width: 1.8, color: colour }, itemStyle: { color: colour }, emphasis: { focus: "series" }, ...extra,
  };
}

function highestOf(...lists) {
  let highest = 0;
  for (const list of lists) for (const value of list) highest = Math.max(highest, value);
  return highest;
}

function lengthOf(rows, truth) {
  const ends = rows.flatMap((row) => row.runs.map((run) => run.series.time_ns[run.series.time_ns.length - 1] || 0));
  return seconds(highestOf(ends, truth ? truth.time_ns : [])) || 1;
}

export function points(series, key) {
  return series.time_ns.map((time, i) => [seconds(time), series[key][i]]);
}

// The value that a line of [time, value] has at some time: that of the last point before it.
function valueAt(line, time) {
  let low = 0;
  let high = line.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (line[middle][0] <= time) low = middle;
    else high = middle;
  }
  return line[low][1];
}

function liveArea(look, run) {
  return line("live bytes", look.muted, points(run.series, "live_bytes"), {
    lineStyle: { width: 1, color: look.muted, opacity: 0.45 }, areaStyle: { color: look.muted, opacity: 0.18 }, z: 1,
  });
}

const kLegendLine = 22;

// Lines that a legend of these names takes in a chart of some width, by the width of an average letter.
function legendLines(names, width) {
  let lines = 1;
  let used = 0;
  for (const name of names) {
    const item = 42 + 7 * name.length;
    if (used > 0 && used + item > width) {
      ++lines;
      used = 0;
    }
    used += item;
  }
  return lines;
}

// RSS over the recording's time: one line per row (its first seed), live bytes, the recorded process.
export function overTime(look, rows, truth, width) {
  const series = [];
  const first = rows.find((row) => row.runs.length > 0);
  if (first) series.push(liveArea(look, first.runs[0]));
  for (const row of rows) {
    if (row.runs.length > 0) series.push(line(row.label, row.colour, points(row.runs[0].series, "heap_rss_bytes")));
  }
  if (truth && truth.time_ns.length > 0) {
    series.push(line("recorded process", look.text, points(truth, "heap_rss_bytes"), {
      lineStyle: { width: 2, color: look.text, type: "dotted" },
    }));
  }
  const shown = rows.filter((row) => row.runs.length > 0).map((row) => row.runs[0].series);
  const highest = highestOf(...shown.map((columns) => columns.heap_rss_bytes), ...shown.map((columns) => columns.live_bytes),
    truth ? truth.heap_rss_bytes : []);
  const selected = {};  // draw() keeps in it what the reader has switched off in the legend
  return {
    ...base(look),
    legend: { selected, top: 4, left: 8, icon: "roundRect", itemWidth: 16, itemHeight: 4, itemGap: 18, textStyle: { color: look.text } },
    grid: { left: 12, right: 20, top: 18 + kLegendLine * legendLines(series.map((each) => each.name), width), bottom: 64, containLabel: true },
    dataZoom: [{ type: "inside", filterMode: "none" }, { type: "slider", height: 24, bottom: 12, filterMode: "none", labelFormatter: (value) => axisTime(value), textStyle: { color: look.muted } }],
    xAxis: timeAxis(look, lengthOf(rows, truth), innerWidth < 600 ? 4 : 8),
    yAxis: bytesAxis(look, highest),
    tooltip: {
      ...base(look).tooltip,
      trigger: "axis",
      // Of every line, whether it was sampled at this very moment or not.
      formatter: (items) => {
        const time = items[0].axisValue;
        const shown = series.filter((each) => selected[each.name] !== false && each.data.length > 0);
        return tooltipRows(`after ${axisTime(time)}`, shown.map((each) => ({ each, value: valueAt(each.data, time) }))
          .sort((a, b) => b.value - a.value)
          .map(({ each, value }) => ({ colour: each.itemStyle.color, name: each.name, value: format.bytes(value) })));
      },
    },
    series,
  };
}

function plainAxis(look, formatter) {
  return { type: "value", splitNumber: 4, axisLabel: { formatter, color: look.muted, hideOverlap: true }, splitLine: { lineStyle: { color: look.line } } };
}

// Horizontal bars, one per row; `figures` are [name, key of the band, opacity].
function bars(look, rows, figures, formatValue, axis) {
  const shown = rows.filter((row) => row.failed_runs < row.run_count).reverse();
  return {
    ...base(look),
    legend: { show: figures.length > 1, top: 0, textStyle: { color: look.text } },
    grid: { left: 12, right: 84, top: figures.length > 1 ? 32 : 8, bottom: 8, containLabel: true },
    xAxis: axis,
    yAxis: {
      type: "category", data: shown.map((row) => row.label), axisTick: { show: false }, axisLine: { lineStyle: { color: look.line } },
      axisLabel: { color: look.text, width: innerWidth < 600 ? 100 : 150, overflow: "break", lineHeight: 15 },
    },
    tooltip: {
      ...base(look).tooltip,
      trigger: "axis",
      axisPointer: { type: "shadow", shadowStyle: { color: look.muted, opacity: 0.1 } },
      formatter: (items) =>
        tooltipRows(items[0].name, items.map((item) => {
          const band = shown[item.dataIndex][figures[item.seriesIndex][1]];
          const range = band.low === band.high ? "" : ` (${formatValue(band.low)} to ${formatValue(band.high)})`;
          return { colour: shown[item.dataIndex].colour, name: item.seriesName, value: formatValue(item.value) + range };
        })),
    },
    series: figures.map(([name, key, opacity]) => ({
      name, type: "bar", barMaxWidth: 22, itemStyle: { color: look.muted, opacity },
      data: shown.map((row) => ({ value: row[key].median, itemStyle: { color: row.colour, opacity, borderRadius: [0, 3, 3, 0] } })),
      label: { show: true, position: "right", color: look.text, formatter: (item) => formatValue(item.value) },
    })),
  };
}

export function peakAndSteady(look, rows) {
  return bars(look, rows, [["steady", "steady_rss_bytes", 1], ["peak", "peak_rss_bytes", 0.45]], format.bytes,
    bytesAxis(look, highestOf(rows.map((row) => Math.max(row.peak_rss_bytes.median, row.steady_rss_bytes.median))), innerWidth < 600 ? 3 : 4));
}

export function overhead(look, rows) {
  const axis = plainAxis(look, (value) => `${Math.round(value * 100)} %`);
  return bars(look, rows, [["overhead", "overhead_share", 1]], format.share, axis);
}

function quantile(sorted, share) {
  const place = (sorted.length - 1) * share;
  const low = Math.floor(place);
  return sorted[low] + (sorted[Math.ceil(place)] - sorted[low]) * (place - low);
}

// Steady RSS over seeds, or over the traces of a fleet: a box per row and every run as a point.
export function distribution(look, rows, relative) {
  const shown = rows.filter((row) => row.runs.length > 0);
  const values = shown.map((row) => row.runs.map((run) => (relative ? run.relative : run.steady_rss_bytes)).sort((a, b) => a - b));
  const formatValue = relative ? (value) => `${value.toFixed(2)}x` : format.bytes;
  const axis = relative ? plainAxis(look, formatValue) : bytesAxis(look, highestOf(...values));
  return {
    ...base(look),
    grid: { left: 12, right: 20, top: 12, bottom: 8, containLabel: true },
    xAxis: { type: "category", data: shown.map((row) => row.label), axisLabel: { color: look.text, width: innerWidth < 600 ? 60 : 130, overflow: "break", lineHeight: 15, interval: 0 }, axisLine: { lineStyle: { color: look.line } } },
    yAxis: axis,
    tooltip: {
      ...base(look).tooltip,
      formatter: (item) => {
        const sorted = values[item.dataIndex === undefined || item.seriesType === "scatter" ? item.value[0] : item.dataIndex];
        const names = [["highest", 1], ["upper quartile", 0.75], ["median", 0.5], ["lower quartile", 0.25], ["lowest", 0]];
        return tooltipRows(`${item.name || ""} (${sorted.length} runs)`, names.map(([name, q]) => ({ colour: "transparent", name, value: formatValue(quantile(sorted, q)) })));
      },
    },
    series: [
      {
        name: "quartiles", type: "boxplot", boxWidth: [12, 42],
        data: values.map((sorted, i) => ({ value: [0, 0.25, 0.5, 0.75, 1].map((q) => quantile(sorted, q)), itemStyle: { color: look.surface, borderColor: shown[i].colour, borderWidth: 1.8 } })),
      },
      {
        name: "runs", type: "scatter", symbolSize: 6,
        data: values.flatMap((sorted, i) => sorted.map((value) => ({ name: shown[i].label, value: [i, value], itemStyle: { color: shown[i].colour, opacity: 0.7 } }))),
      },
    ],
  };
}

// One row by itself: every seed as a thin line over the live bytes, on a scale that all share.
export function trajectory(look, row, highest) {
  const steady = row.runs.length > 0 ? seconds(row.runs[0].steady_start_ns) : 0;
  return {
    ...base(look),
    grid: { left: 8, right: 24, top: 10, bottom: 4, containLabel: true },
    xAxis: timeAxis(look, lengthOf([row], null), 3),
    yAxis: bytesAxis(look, highest, 4),
    tooltip: {
      ...base(look).tooltip,
      trigger: "axis",
      formatter: (items) => tooltipRows(`after ${axisTime(items[0].axisValue)}`, items.map((item) => ({ colour: item.color, name: item.seriesName, value: format.bytes(item.value[1]) }))),
    },
    series: row.runs.length === 0 ? [] : [
      liveArea(look, row.runs[0]),
      ...row.runs.map((run, i) => line(row.runs.length > 1 ? `seed ${run.seed}` : "heap RSS", row.colour, points(run.series, "heap_rss_bytes"), {
        lineStyle: { width: 1.4, color: row.colour, opacity: row.runs.length > 1 ? 0.6 : 1 },
        markArea: i > 0 ? undefined : { silent: true, itemStyle: { color: row.colour, opacity: 0.06 }, data: [[{ xAxis: steady }, { xAxis: "max" }]] },
      })),
    ],
  };
}

// The parts of a heap map, from the bottom of the stack, with a colour each.
export const kParts = [
  ["live_bytes", "live, requested", "#1a9e77"], ["internal_bytes", "internal fragmentation", "#b8c92f"],
  ["partly_free_bytes", "free inside partly used pages", "#e0861a"], ["wholly_free_bytes", "wholly free, still resident", "#d14b3f"],
  ["metadata_bytes", "metadata", "#8a6fe0"],
];

// Where the memory is, over time: a stack that adds up to the RSS.
export function whereOverTime(look, run, highest) {
  return {
    ...base(look),
    grid: { left: 8, right: 24, top: 10, bottom: 4, containLabel: true },
    xAxis: timeAxis(look, seconds(run.heap_maps[run.heap_maps.length - 1].time_ns) || 1, 3),
    yAxis: bytesAxis(look, highest, 4),
    tooltip: {
      ...base(look).tooltip,
      trigger: "axis",
      formatter: (items) => tooltipRows(`after ${axisTime(items[0].axisValue)}`,
        [...items].reverse().map((item) => ({ colour: item.color, name: item.seriesName, value: format.bytes(item.value[1]) }))),
    },
    series: kParts.map(([key, name, colour]) => line(name, colour, run.heap_maps.map((map) => [seconds(map.time_ns), Math.max(map[key], 0)]), {
      stack: "parts", sampling: "none", lineStyle: { width: 0.5, color: colour }, areaStyle: { color: colour, opacity: 0.75 }, emphasis: { disabled: true },
    })),
  };
}

// How full the pages with live objects are, at one moment.
export function occupancy(look, row, map) {
  const highest = highestOf(map.occupancy_pages);
  return {
    ...base(look),
    grid: { left: 8, right: 12, top: 10, bottom: 4, containLabel: true },
    xAxis: { type: "category", data: map.occupancy_pages.map((_, i) => `${(i + 1) * 10} %`), axisLabel: { color: look.muted, interval: 1 }, axisTick: { show: false }, axisLine: { lineStyle: { color: look.line } } },
    yAxis: bytesAxis(look, highest * 4096, 4),
    tooltip: {
      ...base(look).tooltip,
      trigger: "axis",
      formatter: (items) => tooltipRows(`pages up to ${items[0].name} full`, [{ colour: row.colour, name: `${map.occupancy_pages[items[0].dataIndex]} pages`, value: format.bytes(items[0].value) }]),
    },
    series: [{ name: "pages", type: "bar", barCategoryGap: "12%", itemStyle: { color: row.colour, borderRadius: [2, 2, 0, 0] }, data: map.occupancy_pages.map((pages) => pages * 4096) }],
  };
}

// What a chart shows, read back from the chart itself: the sum of the values of each of its series.
export function drawnSums(chart) {
  const sums = {};
  for (const series of chart.getOption().series) {
    let sum = 0;
    for (const item of series.data) {
      const value = item !== null && typeof item === "object" && !Array.isArray(item) ? item.value : item;
      sum += Array.isArray(value) ? value[value.length - 1] : value;
    }
    sums[series.name] = (sums[series.name] || 0) + sum;
  }
  return sums;
}

export function draw(element, option) {
  const chart = echarts.init(element, null, { renderer: "svg" });
  chart.setOption(option, { notMerge: true });
  chart.on("legendselectchanged", (event) => Object.assign(option.legend.selected || {}, event.selected));
  return chart;
}
