# A machine on which only the time of a replay is another gives the same figures, and no remark more.
make_trace two_threads.tape 60
replay() { heaptape replay two_threads.tape -a glibc -a jemalloc --no-cache -f json 2> talk.txt; }
HEAPTAPE_DISTRUST= replay > here.json
cp talk.txt here.txt
for missing in fsgsbase identities fsgsbase,identities; do
  HEAPTAPE_DISTRUST=$missing replay > there.json
  cmp here.txt talk.txt && python3 - $missing <<'PYTHON'
import json, sys
here, there = json.load(open("here.json")), json.load(open("there.json"))
print("without", sys.argv[1], *(run["settings"]["engine"] for run in there["runs"]))
for key in "remarks", "traces": print(key, here[key] == there[key])
for key in "notes", "series_digest", "series", "peak_rss_bytes", "system_calls", "verdict":
    print(key, [run[key] for run in here["runs"]] == [run[key] for run in there["runs"]])
PYTHON
done
HEAPTAPE_DISTRUST=fsgsbas heaptape replay two_threads.tape -a glibc 2>&1 | grep -o 'HEAPTAPE_DISTRUST: .*'
