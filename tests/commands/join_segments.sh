# The files of a recording in segments become one; what is none of them is refused, and nothing is left of the attempt.
try() { heaptape "$@" 2>&1; echo "-> $?"; }
segment() { number=$1; shift; printf '%s\n' '#heaptape dump 1' "#info program worker" "#info time_resolution_ns 1000000" "#info segment_number $number" "$@" | heaptape load -o "$name.tape"; }
name=first segment 1 '0 malloc 0 24 0 -' '0 malloc 1 100 0 -' '- time - 5000000 0 -' '0 free 0 0 0 -'
name=second segment 2 '#info segment_start_ns 7000000' '0 malloc 0 100 0 -' '- time - 2000000 0 -' '0 calloc 1 8 0 -'
name=third segment 3 '#info segment_start_ns 10000000' '0 malloc 0 100 0 -' '0 calloc 1 8 0 -' '0 realloc 0 200 0 -'
try join third.tape first.tape second.tape -o whole.tape
heaptape dump whole.tape
try join first.tape third.tape -o other.tape
try join first.tape second.tape second.tape -o other.tape
try join first.tape "$SCRIPT_DIR/../golden/segment_2_1.tape" -o other.tape | sed "s#$SCRIPT_DIR/##"
try join first.tape second.tape -o whole.tape
heaptape dump second.tape | sed 's/ 100 / 101 /' | heaptape load -o changed.tape
try join first.tape changed.tape -o other.tape
try join second.tape third.tape -o rest.tape
heaptape inspect rest.tape | grep duration
try replay rest.tape -a bump | grep -o 'rest.tape: begins.*'
ls
