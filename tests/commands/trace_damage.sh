# A trace of which nothing can be read is an error; verify says what is lost, and when.
try() { heaptape "$@"; echo "-> $?"; }
flip() { printf '\125' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
make_trace damaged.tape 20
flip damaged.tape 300
try replay damaged.tape -a glibc 2>&1 | sed 's/its [0-9]* events/its N events/'
try verify damaged.tape 2>&1 | sed 's/[0-9]\{2,\}/N/g'
golden="$SCRIPT_DIR/../golden"
for name in every_event flipped_bit cut_short; do
  cp "$golden/$name.tape" .
  try verify $name.tape
done
# Copies of a damaged trace hold what is readable, and say by their status that it is not all; a part beside the damage is whole.
for command in scrub pack join "cut --to 1ms" "cut --from 3ms"; do
  try $command flipped_bit.tape -o copy.tape --force 2>&1 | sed 's/[0-9.]* bytes an event.*/N bytes an event/'
done
