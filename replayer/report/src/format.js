// Numbers as people read them; the same rules as replayer/export/format.cc.

const kUnits = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

export function bytes(value) {
  if (Math.abs(value) < 1024) return `${Math.round(value)} B`;
  let unit = -1;
  while (Math.abs(value) >= 1023.95 && unit < 5) {
    value /= 1024;
    ++unit;
  }
  return `${value.toFixed(Math.abs(value) < 9.995 ? 2 : 1)} ${kUnits[unit]}`;
}

// For the ticks of an axis: "100 MiB".
export function axisBytes(value) {
  return bytes(value).replace(/\.0+ /, " ");
}

export function growth(value) {
  if (Math.abs(value) < 0.5) return "0/day";
  return `${value > 0 ? "+" : ""}${bytes(value)}/day`;
}

export function share(value) {
  const percent = value * 100;
  if (Math.abs(percent) < 0.05) return "0.0 %";
  return `${percent > 0 ? "+" : ""}${percent.toFixed(Math.abs(percent) < 999.95 ? 1 : 0)} %`;
}

export function count(value) {
  if (value < 10000) return String(Math.round(value));
  const units = ["k", "M", "G", "T"];
  let unit = -1;
  while (value >= 999.95 && unit < 3) {
    value /= 1000;
    ++unit;
  }
  return `${value.toFixed(1)} ${units[unit]}`;
}

export function duration(ns) {
  const seconds = ns / 1e9;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}
