# The gate on results whose figures are known.
sample_results one > base.json
python3 - <<'PYTHON'
import json
results = json.load(open("base.json"))
for run in results["runs"]:
    if run["allocator"] == "glibc":
        for figure in "peak_rss_bytes", "steady_rss_bytes":
            run[figure] = run[figure] * 110 // 100
json.dump(results, open("worse.json", "w"))
results["traces"][0]["digest"] = "another"
json.dump(results, open("other.json", "w"))
PYTHON
heaptape compare base.json base.json --max peak=+5% --max steady=+3% --max growth=+10MB/day; echo "-> $?"
heaptape compare base.json worse.json --max peak=+5% --max steady=+3% --max growth=+10MB/day; echo "-> $?"
heaptape compare base.json worse.json; echo "-> $?"
heaptape compare base.json worse.json --max peak=+20%; echo "-> $?"
heaptape compare worse.json base.json --max peak=+0%  --format markdown; echo "-> $?"
heaptape compare base.json worse.json --max steady=+1% --format json | python3 -c 'import json,sys; r=json.load(sys.stdin); print(r["schema_version"], r["rows"][0]["allocator"], r["rows"][0]["changes"]["steady"]["broken"], len(r["broken"]))'
heaptape compare base.json other.json; echo "-> $?"
heaptape compare base.json worse.json --max peak=lots; echo "-> $?"
