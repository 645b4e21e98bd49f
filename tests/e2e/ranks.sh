# Several ranks in one run: the same curve as one rank with the larger batch, whatever starts them; a run goes on with
# another number of them; one that dies ends all with one sentence, and nobody stays behind.
source "$(dirname "$0")/common.sh"
make_text text 30
train=("$parallax" train --data text "${tiny[@]}" --steps 20 --checkpoint-every 10)

# Two and three ranks read what one with a larger batch reads, and learn the same.
must "${train[@]}" --out one --batch 6
must "${train[@]}" --out two --batch 3 --ranks 2
must "${train[@]}" --out three --batch 2 --ranks 3
same_losses one two 1e-6
same_losses one three 1e-6
for run in one three; do sed -n 's/.*"val_loss":\([0-9.]*\).*/\1/p' "$run/log.jsonl" >"$run.val"; done
paste one.val three.val | awk '{ error = $1 - $2; if (error < 0) error = -error; if (!(error < 1e-5)) exit 1 }
    END { exit NR != 3 }' || fail "evaluations differ: $(paste one.val three.val)"
must "${train[@]}" --out accumulated --batch 1 --accumulate 3 --ranks 2
same_losses one accumulated 1e-6
must "${train[@]}" --out again --batch 3 --ranks 2
same_model two again
must "${train[@]}" --out adamw --batch 6 --optimizer adamw --mixer softmax --no-tie-embeddings
must "${train[@]}" --out adamw2 --batch 3 --optimizer adamw --mixer softmax --no-tie-embeddings --ranks 2
same_losses adamw adamw2 1e-6

# Where every row is the same text, halves of gradients add up to the whole exactly, and quarters (nn/comm/NOTES.md): two or
# four ranks are one, bit for bit.
make_rows rows.txt
rows=("$parallax" train --data rows.txt "${tiny[@]}" --steps 12 --val-fraction 0 --no-shuffle)
for moments in f32 bf16; do
    must "${rows[@]}" --moments "$moments" --out "rows1-$moments"
    for ranks in 2 4; do
        must "${rows[@]}" --moments "$moments" --out "rows$ranks-$moments" --ranks "$ranks"
        same_losses "rows1-$moments" "rows$ranks-$moments" 0
        same_state "rows1-$moments" "rows$ranks-$moments"
    done
done

# Half the way with two ranks, the rest with one or three; and with two again, to the same bits.
for ranks in 1 2 3; do
    cp -r two "on$ranks"
    rm -r "on$ranks/checkpoints/step-00000020"
    must "${train[@]}" --out "on$ranks" --resume auto --batch $((6 / ranks)) --ranks "$ranks"
    same_losses one "on$ranks" 1e-6
done
same_model two on2
cp -r one from1
rm -r from1/checkpoints/step-00000020
must "${train[@]}" --out from1 --resume auto --batch 2 --ranks 3
same_losses one from1 1e-6

# by_hand RANK SIZE PORT [OPTION...]: one rank as torchrun or srun would start it.
by_hand() {
    local rank=$1 size=$2 port=$3
    shift 3
    env RANK="$rank" WORLD_SIZE="$size" LOCAL_RANK="$rank" MASTER_ADDR=127.0.0.1 MASTER_PORT="$port" \
        "${train[@]}" --batch 3 "$@"
}
port=$((20000 + $$ % 10000))
by_hand 1 2 "$port" --out hand >hand1 2>&1 &
other=$!
must by_hand 0 2 "$port" --out hand
wait "$other" || fail "rank 1 ended with $?: $(cat hand1)"
[ ! -s hand1 ] || fail "rank 1 is not silent: $(cat hand1)"
same_model two hand

# What the environment says must be possible.
refuses 2 'WORLD_SIZE: is not set' env RANK=0 "${train[@]}" --out bad
refuses 2 'RANK: "2" is not a number from 0 to 1' by_hand 2 2 1 --out bad
refuses 2 'MASTER_PORT: "x" is not' by_hand 0 2 x --out bad
refuses 2 'MASTER_ADDR: is not set' env RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 "${train[@]}" --out bad
refuses 2 'LOCAL_RANK: is not set' env RANK=0 WORLD_SIZE=2 "${train[@]}" --out bad
refuses 2 '--gpus: 3, but WORLD_SIZE says that there are 1' env RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 "${train[@]}" --out bad --ranks 3
refuses 2 '--ranks: 0 is less than' "${train[@]}" --out bad --ranks 0
refuses 2 '--ranks: 3 on the CPU contradict --gpus 2' "${train[@]}" --out bad --ranks 3 --gpus 2
refuses 2 '--gpus: its ranks run on cuda, but --device is cpu' "${train[@]}" --out bad --gpus 2 --device cpu
refuses 2 '--ranks: its ranks run on cpu, but --device is cuda' "${train[@]}" --out bad --ranks 2 --device cuda
"$parallax" info >info
if grep -q '^gpu  *none: .*no CUDA' info; then
    refuses 2 'no CUDA' "${train[@]}" --out bad --gpus 2
elif grep -q '^gpu  *none' info; then
    refuses 1 'no GPU' "${train[@]}" --out bad --gpus 2
fi
export PARALLAX_MEETING_SECONDS=1
refuses 1 "rank 1: rank 0 cannot be reached at 127.0.0.1 port $port for 1 seconds" by_hand 1 2 "$port" --out bad
refuses 1 "rank 0: after 1 seconds 1 of 2 ranks have come to 127.0.0.1 port $port, rank 1 not" by_hand 0 2 "$port" --out bad
unset PARALLAX_MEETING_SECONDS

# Ranks that would not do the same are refused, and so is whoever is no rank of this job.
by_hand 1 2 "$port" --out bad --seed 2 >hand1 2>&1 &
refuses 2 'rank 0: the options: 1 of 2 ranks differ' by_hand 0 2 "$port" --out bad
wait $! && fail "the rank with other options succeeds"
by_hand 1 3 "$port" --out bad >hand1 2>&1 &
refuses 2 'rank 0: WORLD_SIZE: is 3 for a rank that called, but 2 for rank 0' by_hand 0 2 "$port" --out bad
wait $! && fail "the rank of another job succeeds"
# A rank that refuses its command line, as it is read or as a whole, is not awaited by the other one.
for refused in --no-such=1 --ranks=3; do
    for rank in 0 1; do
        by_hand "$rank" 2 "$port" --out bad "${refused%=*}" "${refused#*=}" --gpus 2 >hand1 2>&1 &
        refuses 1 'has ended|not as rank 0 of this job' timeout 20 env RANK=$((1 - rank)) WORLD_SIZE=2 LOCAL_RANK=0 \
            MASTER_ADDR=127.0.0.1 MASTER_PORT="$port" "${train[@]}" --batch 3 --out bad
        wait $! && fail "rank $rank succeeds with $refused"
        grep -q "^parallax: ${refused%=*}" hand1 || fail "rank $rank does not refuse $refused: $(cat hand1)"
    done
done
[ ! -e bad ] || fail "refused runs left $(find bad)"

# One sentence for all ranks where they start and where the loss diverges.
refuses 1 '^parallax: no/such/file' "$parallax" train --data no/such/file --out bad "${tiny[@]}" --ranks 3
refuses 2 '^parallax: one: already holds a run' "${train[@]}" --out one --ranks 2
cp -r two nan
refuses 1 '^parallax: step 2[12]: .*; the last good checkpoint is nan/checkpoints/step-00000020' "$parallax" train \
    --out nan --resume auto --steps 60 --checkpoint-every 1 --schedule constant --lr 1e30 --ranks 2

# running FOLDER: waits until a long run has logged some steps. gone PID...: until these have ended.
running() {
    for _ in $(seq 500); do
        [ -s "$1/log.jsonl" ] && [ "$(wc -l <"$1/log.jsonl")" -gt 15 ] && return
        sleep 0.02
    done
    fail "$1 does not start: $(cat run.out)"
}
gone() {
    for pid in "$@"; do
        for _ in $(seq 750); do kill -0 "$pid" 2>/dev/null || continue 2; sleep 0.02; done
        fail "process $pid is still there"
    done
}
long=("$parallax" train --data text "${tiny[@]}" --steps 100000 --checkpoint-every 10 --keep 2 --ranks 3)

# A rank that dies.
for rank in 2 0; do
    "${long[@]}" --out "dead$rank" >run.out 2>run.err &
    starter=$!
    running "dead$rank"
    mapfile -t ranks < <(children "$starter")
    [ "${#ranks[@]}" -eq 3 ] || fail "${#ranks[@]} ranks, not 3"
    kill -9 "${ranks[$rank]}"
    code=0
    wait "$starter" || code=$?
    [ "$code" -eq 1 ] || fail "exit code $code after rank $rank died"
    [ "$(wc -l <run.err)" -eq 1 ] || fail "not one line: $(cat run.err)"
    grep -Eq "^parallax: rank $rank was killed by signal 9 \(Killed\); the last good checkpoint is dead$rank/checkpoints/step-" \
        run.err || fail "says: $(cat run.err)"
    gone "${ranks[@]}"
done
must "$parallax" train --out dead2 --resume auto --steps 1 --ranks 2

# One that dies under another launcher: the others say so, and rank 0 what is left.
for rank in 0 1; do
    by_hand "$rank" 2 "$port" --steps 1000000 --out lonely >run.out 2>"lonely$rank" &
    ranks[rank]=$!
done
running lonely
kill -9 "$(children "${ranks[1]}")"
code=0
wait "${ranks[0]}" || code=$?
[ "$code" -eq 1 ] || fail "rank 0 ended with $code after rank 1 died"
[ "$(wc -l <lonely0)" -eq 1 ] || fail "not one line: $(cat lonely0)"
grep -q '^parallax: rank 0: rank 1 has ended before rank 0 was done with it: .*; the last good checkpoint is lonely/' \
    lonely0 || fail "says: $(cat lonely0)"

# The same where rank 0 waits for something else and would never know, here for a reader of what it prints.
mkfifo unread
exec 9<>unread
by_hand 0 2 "$port" --steps 1000000 --out stuck --log-every 1 --checkpoint-every 200 >unread 2>stuck0 &
ranks[0]=$!
by_hand 1 2 "$port" --steps 1000000 --out stuck --log-every 1 --checkpoint-every 200 >run.out 2>stuck1 &
ranks[1]=$!
running stuck
until lines=$(wc -l <stuck/log.jsonl) && sleep 1 && [ "$(wc -l <stuck/log.jsonl)" -eq "$lines" ]; do :; done
kill -9 "$(children "${ranks[1]}")"
begin=$SECONDS
code=0
gone "${ranks[0]}"
wait "${ranks[0]}" || code=$?
[ "$code" -eq 1 ] || fail "rank 0 ended with $code, stuck, after rank 1 died"
[ $((SECONDS - begin)) -ge 4 ] || fail "rank 0 was not stuck"
[ "$(wc -l <stuck0)" -eq 1 ] || fail "not one line: $(cat stuck0)"
grep -Eq "^parallax: rank 0: rank 1 has ended before rank 0 was done with it: .*; the last good checkpoint is $(final stuck)\$" \
    stuck0 || fail "says: $(cat stuck0)"
exec 9>&-
must "${train[@]}" --out stuck --resume auto --steps 1 --batch 6

# The starter dies.
"${long[@]}" --out orphans >run.out 2>run.err &
starter=$!
running orphans
mapfile -t ranks < <(children "$starter")
disown "$starter"
kill -9 "$starter"
gone "${ranks[@]}"

# Ctrl-C: every rank stops after the same step, and the run continues exactly.
"${long[@]}" --out cut >run.out 2>run.err &
starter=$!
running cut
kill -INT "$starter"
wait "$starter" || fail "exit code $? after SIGINT: $(cat run.err)"
step=$(sed -n 's/^stopped after step \([0-9]*\) of.*/\1/p' run.out)
[ -n "$step" ] || fail "says nothing of stopping: $(cat run.out)"
must "$parallax" train --data text "${tiny[@]}" --steps 100000 --checkpoint-every 10 --ranks 3 --out cut --resume auto --max-seconds 0.0001
