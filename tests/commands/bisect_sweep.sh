# heaptape sweep: the figure over chosen commits, the largest steps marked, and ends for a bisection.
. "$SCRIPT_DIR/bisect_repository.inc"
make_allocator
make_trace trace.tape 60
sweep() { heaptape sweep trace.tape --family mine --source allocator --library liballoc.so --build "$build" "$@" 2>/dev/null; }
sweep v1 a2 broken2 v2 v3 -f csv | cut -d, -f2,3,6,10 | sed 's/,mine.*does not build.*/,does not build/'; echo
sweep v1 a2 broken2 v2 v3 | tail -1
sweep --tags 'v*' -f json | python3 -c 'import json,sys; r=json.load(sys.stdin); print(*(c["subject"] for c in r["commits"])); print(*(s["bisect"] for s in r["steps"]), sep="\n")'
sweep --every 4 -f json | python3 -c 'import json,sys; print(*(c["subject"] for c in json.load(sys.stdin)["commits"]))'
sweep --every 2 --from v2 --to v3 -f json | python3 -c 'import json,sys; print(*(c["subject"] for c in json.load(sys.stdin)["commits"]))'
heaptape sweep trace.tape --family mine --source allocator --library x --build true; echo "-> $?"
heaptape sweep trace.tape --family mine --source allocator --library x --build true --tags 'x*'; echo "-> $?"
