# heaptape check, for those who prefer git's own driver.
. "$SCRIPT_DIR/bisect_repository.inc"
make_allocator
make_trace trace.tape 60
cd allocator
for commit in v1 v2; do
  git checkout -q $commit && sh -c "$build" && cp liballoc.so ../$commit.so
done
check() { heaptape check ../trace.tape "$@" 2>/dev/null | cut -d' ' -f1; }
code() { heaptape check ../trace.tape "$@" >/dev/null 2>err.txt; echo "-> $?"; }
check -a ../v1.so --baseline ../v1.so; check -a ../v2.so --baseline ../v1.so; check -a ../v2.so --baseline ../v1.so --threshold 9x
code -a ../v1.so --max 64MB; code -a ../v1.so --max 1MB
echo "== untestable"
code -a ./missing.so --max 1MB; code -a ../v1.so --max 1MB --build false
echo "== what would make every answer wrong"
code -a ../v1.so --max 1; code -a ../v1.so; code --max 1MB; heaptape check none.tape -a ../v1.so --max 1MB; echo "-> $?"
echo "== git bisect run"
git bisect start v2 v1 >/dev/null 2>&1
git bisect run heaptape check ../trace.tape -a ./liballoc.so --baseline ../v1.so --threshold 1.5x --build "$build" > run.txt 2>&1
grep 'is the first bad commit' run.txt | sed "s/$(git rev-parse culprit)/culprit/"
