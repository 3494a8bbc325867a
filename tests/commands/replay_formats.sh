# Every format from one replay; figures that depend on the machine are masked.
make_trace guard.tape 120
mask() { sed -E '/^- /d; s#[^ ]+( [KMG]?i?B)? in [0-9]+ s#GROWTH#g; s#(  |\| )0 #\1GROWTH #g; s/Linux [^)]*/Linux N/; s/[0-9]+(\.[0-9]+)*( [kMG])?/N/g; s/[+-]N/N/g; s/ +/ /g; s/N m?s/N s/g; s/(KiB|MiB|GiB|TiB|B)/bytes/g'; }
heaptape replay guard.tape -a glibc -o results.json 2>/dev/null | mask
heaptape replay guard.tape -a glibc -f markdown 2>/dev/null | mask
heaptape replay guard.tape -a glibc -f csv 2>/dev/null | head -3 | mask
heaptape replay guard.tape -a glibc -f prometheus 2>/dev/null | grep -c '^heaptape_'
heaptape replay guard.tape -a glibc -f json 2>/dev/null > again.json
python3 - <<'PYTHON'
import json
saved, printed = json.load(open("results.json")), json.load(open("again.json"))
for results in saved, printed:
    results.pop("command")
print("-o and --format json agree:", saved == printed)
run = saved["runs"][0]
print(sorted(set("allocator version seed peak_rss_bytes steady_rss_bytes end_rss_bytes growth_bytes_per_day verdict "
                 "events_replayed wall_ns series_digest error".split()) - set(run)))
print(run["allocator"], run["seed"], run["verdict"], run["error"], run["events_replayed"] == saved["traces"][0]["events"])
print("peak is the highest:", run["peak_rss_bytes"] >= max(run["series"]["heap_rss_bytes"]))
print("steady is below the peak:", 0 < run["steady_rss_bytes"] <= run["peak_rss_bytes"])
PYTHON
heaptape report results.json -o report.html
head -c 15 report.html; echo
ls
