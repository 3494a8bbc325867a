# heaptape reduce: a small trace on which two allocators still differ.
. "$SCRIPT_DIR/bisect_repository.inc"
make_allocator
make_trace trace.tape 200
for commit in v1 v2; do
  git -C allocator checkout -q $commit && (cd allocator && sh -c "$build") && cp allocator/liballoc.so $commit.so
done
heaptape reduce trace.tape --bad ./v2.so --good ./v1.so -o small.tape --max-steps 30 -f json > reduction.json 2>steps.txt; echo "-> $?"
heaptape reduce trace.tape --bad ./v2.so --good ./v1.so -o again.tape --max-steps 30 >/dev/null 2>&1; echo "-> $?"
grep -c 'is damaged' steps.txt
cmp small.tape again.tape && echo "the same each time"
heaptape replay small.tape -a ./v1.so -a ./v2.so -f json > replay.json 2>/dev/null
python3 - <<'PYTHON'
import json
r = json.load(open("reduction.json"))
original, reduced = r["original"], r["reduced"]
print("smaller:", reduced["events"] * 4 < original["events"], reduced["file_bytes"] < original["file_bytes"])
excess = lambda p: p["bad"] / p["good"] - 1
print("keeps the excess:", excess(reduced) >= 0.8 * excess(original))
runs = json.load(open("replay.json"))["runs"]
print("what was measured is what is in the file:", sorted(x["steady_rss_bytes"] for x in runs) == sorted([reduced["bad"], reduced["good"]]))
PYTHON
heaptape inspect small.tape | grep -c make_trace
heaptape reduce trace.tape --bad ./v1.so --good ./v1.so -o same.tape 2>&1 | grep -o 'do not differ enough'; ls same.tape 2>&1
heaptape reduce trace.tape --bad ./v2.so --good ./v1.so -o t.tape --metric time; echo "-> $?"
# Of a damaged trace, what comes before the damage; the small one is whole.
make_trace damaged.tape 700
size=$(stat -c %s damaged.tape)
head -c $((size / 6)) /dev/zero | dd of=damaged.tape bs=64K seek=$((size / 2)) oflag=seek_bytes conv=notrunc status=none
heaptape reduce damaged.tape --bad ./v2.so --good ./v1.so -o part.tape --max-steps 2 2>&1 >/dev/null | grep 'is damaged' > said.txt
sed 's/[0-9]\{4,\}/N/g' said.txt
read=$(sed 's/.*its first \([0-9]*\) of.*/\1/' said.txt)
all=$(sed 's/.* of \([0-9]*\) events.*/\1/' said.txt)
[ "$read" -gt 60000 ] && [ "$read" -lt "$all" ] && echo "up to the damage"
heaptape verify part.tape >/dev/null; echo "-> $?"
ls *.part 2>/dev/null
