# What cannot be done is said in one sentence, with a status that tells usage from failure, and leaves nothing.
try() { heaptape "$@"; echo "-> $?"; }
make_trace good.tape 20
: > empty.tape
head -c 100 good.tape > cut.tape
try replay missing.tape
try replay .
try replay empty.tape 2>&1 | sed 's/[0-9]\{2,\} bytes/N bytes/'
try replay /bin/sh
try replay good.tape -a nosuch 2>&1 | sed 's/Known: .*/Known: .../'
try replay good.tape -a ./nosuch.so
try replay good.tape -a glibc -f xml
try replay good.tape -a glibc --sort size
# CLI11 words a range by its version.
{ try replay good.tape -a glibc --seeds 0 2>&1 >&3 | sed 's/range \[1 - 1000\]/range 1 to 1000/' >&2; } 3>&1
try replay good.tape -a glibc -o nosuch/results.json
try replay good.tape -a glibc --no-cache --baseline hoard 2>&1 | sed 's/glibc [0-9.]*[0-9]/glibc N/'
try replay
try record -f -o x.tape -- true
try report nosuch.json
try report good.tape
echo '{"schema_version": 1}' > half.json
try report half.json
try compare half.json half.json --max peak=5
ls
