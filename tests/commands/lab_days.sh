# Memory by day: from a series whose course is known, beside published figures; and what is refused.
make_trace guard.tape 120
heaptape replay guard.tape -a glibc -o results.json 2>/dev/null >/dev/null
python3 - <<'PYTHON'
import json
results = json.load(open("results.json"))
run = results["runs"][0]
run["allocator"], run["version"], run["tunables"] = "mimalloc", "3.0.1", {}
series = run["series"]
points = 2000
for name in series:
    if isinstance(series[name], list):
        series[name] = [series[name][0]] * points
series["time_ns"] = [round(10 * 86400e9 * (i + 1) / points) for i in range(points)]
series["heap_rss_bytes"] = [(100 << 20) + round((i + 1) / points * 10 * (100 << 20)) for i in range(points)]  # 100 MiB a day
json.dump(results, open("days.json", "w"))
PYTHON
cat > published.csv <<'CSV'
timestamp,allocator,relays,mean_rss_kb
2026-01-01T00:00:00,mimalloc 3.0.1,20,102400
2026-01-03T00:00:00,mimalloc 3.0.1,20,307200
2026-01-05T00:00:00,mimalloc 3.0.1,20,512000
CSV
heaptape lab days days.json --published published.csv
heaptape lab days days.json --days 2,10 --format markdown
sed 's/2026-01-03T/2025-12-31T/' published.csv > unordered.csv
heaptape lab days days.json --published unordered.csv; echo $?
echo nonsense > days.txt
printf 'timestamp\nsoon,mimalloc 3.0.1,20,1\n' > wrong.csv
heaptape lab days days.json --published wrong.csv; echo $?
heaptape lab days days.txt
