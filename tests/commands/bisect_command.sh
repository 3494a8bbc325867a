# heaptape bisect on a history made here: a regression on a merged branch, commits that do not build, a fix.
. "$SCRIPT_DIR/bisect_repository.inc"
make_allocator
make_trace trace.tape 60
before=$(git -C allocator for-each-ref; git -C allocator status --porcelain)
bisect() { heaptape bisect trace.tape --family mine --source allocator --library liballoc.so --build "$build" "$@"; }
show() {
  python3 - "$1" <<'PYTHON'
import json, sys
r = json.load(open(sys.argv[1]))
first = r["first"]
print(r["end"], r["metric"], first and first["subject"], first and first["hash"])
if first: print("before and after: %.1fx" % (first["value_after"] / first["value_before"]))
names = {c["hash"]: c["subject"] for c in r["commits"]}
print("asked:", *(names[h] for h in r["asked"]))
print("marks:", *(c["subject"] + "=" + c["mark"].replace(" ", "_") for c in r["commits"]))
print("reasons kept:", *sorted(c["subject"] for c in r["commits"] if c["skip_reason"] and "does not build" in c["skip_reason"]))
print("replayed before:", *(c["subject"] for c in r["commits"] if c["replayed_before"]))
PYTHON
}
# The first build interrupts the program: what was done before stays, and the second run goes on.
heaptape bisect trace.tape --family mine --source allocator --library liballoc.so --good v1 --bad v2 -o none.json \
  --build 'kill -INT $PPID; sleep 60' >/dev/null 2>interrupted.txt; echo "-> $?"
grep -c 'goes on from there' interrupted.txt
ls none.json 2>&1
bisect --good v1 --bad v2 -o first.json --log log --issue issue.md --chart chart.svg > table.txt 2>talk.txt; echo "-> $?"
show first.json
grep '^First bad commit' table.txt
test "$before" = "$(git -C allocator for-each-ref; git -C allocator status --porcelain)" && echo "the source is as it was"
echo "== the log, replayed by git in another clone"
git clone -q allocator other && git -C other bisect replay "$PWD/log" | grep 'first bad commit'
echo "== another metric and the same once more: nothing is built or replayed"
bisect --good v1 --bad v2 --metric peak -o peak.json >/dev/null 2>&1; echo "-> $?"
show peak.json | grep -e '^found' -e '^replayed'
echo "== the fix"
bisect --first-good --bad v2 --good v3 -o fix.json >/dev/null 2>&1; echo "-> $?"
show fix.json | head -1
echo "== what cannot be"
bisect --good v1 --bad v3 2>/dev/null | grep -o 'v1 and v3 do not differ by 1.5x'
bisect --good v1 --bad broken2 >/dev/null 2>&1; echo "-> $?"
bisect --good v3 --bad v2 2>&1 >/dev/null; echo "-> $?"
bisect --good v1 --bad v22 2>&1 >/dev/null; echo "-> $?"
bisect --good v1 --bad v2 --threshold 1.5 2>&1 >/dev/null; echo "-> $?"
heaptape bisect trace.tape --family mimaloc --source allocator --good v1 --bad v2 2>&1 | grep -o '^heaptape: mimaloc: no family of that name'
heaptape bisect none.tape --family mine --build true --library x --source allocator --good v1 --bad v2 2>&1; echo "-> $?"
echo "== the issue"
grep -c "$PWD" issue.md
grep -e '^#' -e '^heaptape bisect' issue.md
python3 -c 'import xml.dom.minidom as m; print("chart of", len(m.parse("chart.svg").getElementsByTagName("circle")), "commits")'
