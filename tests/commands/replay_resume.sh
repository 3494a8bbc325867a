# A fleet is replayed once: the second time everything comes from the cache, and an interrupted fleet goes on.
for i in 1 2 3; do make_trace trace$i.tape 60 $i; done
replay() { heaptape replay trace1.tape trace2.tape trace3.tape -a glibc --seeds 2 -j 2 -f json "$@" 2>/dev/null; }
strip() { python3 -c 'import json,sys; r=json.load(sys.stdin); r.pop("command"); json.dump(r, sys.stdout)'; }
replay | strip > first.json
ls cache/heaptape/results | wc -l
replay | strip > second.json
cmp first.json second.json && echo "second time the same to the nanosecond of wall time: nothing was replayed"
rm cache/heaptape/results/$(ls cache/heaptape/results | head -1)
replay | strip > third.json
ls cache/heaptape/results | wc -l
python3 - <<'PYTHON'
import json
first, third = (json.load(open(name))["runs"] for name in ("first.json", "third.json"))
print("taken from the cache:", sum(a["wall_ns"] == b["wall_ns"] for a, b in zip(first, third)), "of", len(first))
print("same series:", all(a["series_digest"] == b["series_digest"] for a, b in zip(first, third)))
PYTHON
echo damaged > cache/heaptape/results/$(ls cache/heaptape/results | head -1)
replay | strip > fourth.json
python3 -c 'import json; print("a damaged entry is replayed:", [r["series_digest"] for r in json.load(open("first.json"))["runs"]] == [r["series_digest"] for r in json.load(open("fourth.json"))["runs"]])'
heaptape replay trace1.tape trace2.tape -a glibc --no-cache --cache elsewhere 2>/dev/null | grep -c pooled
ls -d elsewhere 2>&1
# Ctrl-C: the paced replay would last as long as the recording.
make_trace long.tape 400
timeout --preserve-status --signal=INT 4 heaptape replay long.tape -a glibc --clock paced
echo "-> $?"
ls
