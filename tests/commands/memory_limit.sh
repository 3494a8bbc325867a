# A small trace may hold a long list of live objects: every command that reads traces refuses one that needs more memory than it
# may take, by name and need, and leaves nothing.
try() { heaptape "$@" > out.txt 2> err.txt; echo "$1 -> $?"; head -c 1000 err.txt; }
heaptape synth -o many.tape --events 300K --sizes 16 --lifetimes 1000000M --rate 10M 2> /dev/null
test "$(stat -c %s many.tape)" -lt 20000 && echo "300 000 live objects in less than 20 kB"
for command in verify dump inspect; do try $command --memory-limit 1MiB many.tape; done
for command in pack cut scrub join extend; do try $command --memory-limit 1MiB many.tape -o copy.tape; done
try synth --memory-limit 1MiB --like many.tape --profile profile.json
try convert --memory-limit 1MiB --to android many.tape -o many.txt
heaptape dump many.tape > dump.txt
heaptape convert --to android many.tape -o calls.txt 2> /dev/null
try load --memory-limit 1MiB dump.txt -o copy.tape
try convert --memory-limit 1MiB calls.txt -o copy.tape
# Of a replay it is the limit of the allocator's heap.
try replay --memory-limit 1MiB many.tape -a glibc --no-cache | sed -n 's/glibc [0-9.]*[0-9]/glibc N/; s/event [0-9]*/event N/; /^replay\|passed/p'
ls
# Where the system gives less than the limit allows, that is said too.
heaptape synth -o more.tape --events 16M --sizes 16 --lifetimes 1000000M --rate 10M 2> /dev/null
(ulimit -v 150000; try verify --memory-limit 1TiB more.tape)
# What just fits is taken.
try verify --memory-limit 3MiB many.tape
