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
python3 - <<'PYTHON'
import pathlib, signal, subprocess, time
running = subprocess.Popen("heaptape replay long.tape -a glibc --clock paced".split())
def replays():
    found = " ".join(path.read_text() for path in pathlib.Path(f"/proc/{running.pid}/task").glob("*/children")).split()
    return any(pathlib.Path(f"/proc/{pid}/comm").read_text() == "heaptape-worker\n" for pid in found)
while running.poll() is None:
    try:
        if replays(): break
    except OSError: pass  # ended in between
    time.sleep(0.02)
running.send_signal(signal.SIGINT)
print("->", running.wait())
PYTHON
ls
