# Other tools' recordings become traces and back; what one side cannot hold is said; what makes no sense is refused.
try() { heaptape "$@"; echo "-> $?"; }
golden="$SCRIPT_DIR/../golden"
for sample in heaptrack-raw.zst heaptrack.zst android.txt glibc replay; do
  try convert "$golden/convert/story.$sample" -o "$sample.tape" 2>&1 | sed 's|/.*/||'
  heaptape inspect --format json "$sample.tape" | grep -E '^  (  "program"|"events"|"peak_live_bytes"):'
done
for format in heaptrack glibc android malloc-trace-replay; do
  try convert "$golden/every_event.tape" --to $format -o $format.out
done
sed -n 1,4p android.out
try convert --to android "$golden/every_event.tape" -o android.out
try convert android.out -o again.tape --from android
try convert android.out -o again.tape
try convert android.out -o again.tape --force
head -c 500 android.out > cut.txt
try convert cut.txt -o cut.tape
try convert good.c -o good.tape
echo 'int main() {}' > good.c
try convert good.c -o good.tape
try convert android.out --to glibc -o x.glibc
try convert again.tape -o x.glibc
try convert again.tape --to valgrind -o x.valgrind
ls
