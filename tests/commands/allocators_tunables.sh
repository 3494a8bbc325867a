# Tunables cross on the command line, each allocator by its own; what none of them knows is refused before anything runs.
make_trace good.tape 20
names() { python3 -c 'import json, sys
for run in json.load(sys.stdin)["runs"]: print(run["allocator"], " ".join(k + "=" + str(v) for k, v in run["tunables"].items()))'; }
heaptape replay good.tape -a glibc -a jemalloc:narenas=2 --tunable glibc:arena_max=1,2 --tunable jemalloc:dirty_decay_ms=0,1000 \
  --tunable jemalloc:lg_tcache_max=12,15 -f json | names
try() { heaptape "$@" 2>&1 | sed 's/Known: .*/Known: .../; s/glibc [0-9.]*[0-9]/glibc N/'; }
try replay good.tape -a jemalloc --tunable jemalloc:dirty_decay=0,10
try replay good.tape -a jemalloc --tunable jemaloc:dirty_decay_ms=0
try replay good.tape -a jemalloc --tunable glibc:arena_max=1
try replay good.tape -a jemalloc --tunable jemalloc:dirty_decay_ms=0,,1
try replay good.tape -a jemalloc --tunable jemalloc:dirty_decay_ms
try replay good.tape -a glibc:arena_mx=1

# A document's table of what is here.
printf 'before\n<!-- allocators: how -->\nold\n<!-- /allocators -->\nafter\n' > table.md
heaptape allocators list --no-check --write-into table.md 2>/dev/null
echo "-> $?"
grep -v '^|' table.md | sed 's/ on .*, by/ on SYSTEM, by/; s/heaptape [0-9.]*/heaptape N/'
grep -c '^| \(bump\|glibc\|jemalloc\) ' table.md
echo nothing > other.md
heaptape allocators list --no-check --write-into other.md 2>&1 | tail -1
cat other.md
