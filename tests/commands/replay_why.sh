# Where the memory is, and who holds it. Every object of the recording is given a stack: every third one comes from
# one place, the others from two more, all through the C library.
make_trace plain.tape 60
heaptape dump plain.tape | awk '
  /^#info/ || NR == 1 { print; next }
  !modules++ { print "#module 00aa program"; print "#module 00bb libc.so.6" }
  { print }
  $2 == "malloc" { printf "#stack %d 1+16 0+%d 0+36864\n", object, 4096 * (object % 3 + 1); object++ }' | heaptape load -o stacks.tape
heaptape replay stacks.tape -a glibc -a jemalloc --why --samples 200 -o why.json > table 2> talk
grep -c 'where the memory is' table
grep 'who holds partly used pages' table | sed 's/  */ /g'
grep -c '^  program+0x' table
cat talk
python3 - <<'PYTHON'
import json
for run in json.load(open("why.json"))["runs"]:
    maps = run["heap_maps"]
    peak = max(maps, key=lambda each: each["heap_rss_bytes"])
    parts = sum(peak[key] for key in ("live_bytes", "internal_bytes", "partly_free_bytes", "wholly_free_bytes", "metadata_bytes"))
    sites = sum(site["partly_free_bytes"] for site in peak["call_sites"])
    print(run["allocator"], "parts are the RSS:", parts == peak["heap_rss_bytes"], "; sites are the partly free part:", abs(sites - peak["partly_free_bytes"]) <= 3,
          "; told at three moments:", sum(bool(each["call_sites"]) for each in maps) <= 3, "; and at the end:", bool(maps[-1]["call_sites"]))
PYTHON
echo '-- a recording without stacks'
echo "$(heaptape replay plain.tape -a glibc --why --samples 200 2> /dev/null | grep -c 'who holds')"
