# RUN/log.jsonl: a header, every step once, whatever happened, and the result last.
source "$(dirname "$0")/common.sh"
make_text text 30
train=("$parallax" train --data text --out run "${tiny[@]}" --checkpoint-every 7 --keep 0)
must "${train[@]}" --steps 20
head -n 1 run/log.jsonl | grep -q '"kind":"run","version":"parallax .*"parameters":[0-9]*,"options":{' ||
    fail "no header: $(head -n 1 run/log.jsonl)"
[ "$(find run/tensorboard -name '*tfevents*' | wc -l)" -eq 1 ] || fail "not one file of events: $(ls run/tensorboard)"
head -n 1 run/log.jsonl | grep -q '"devices":1,"flops_per_token":[0-9.]*,.*"peak_tflops":null,"peak_source":"none is known of' ||
    fail "no FLOPs, or a peak that nobody stated: $(head -n 1 run/log.jsonl)"
[ "$(grep -c '"device_tflops":[0-9.e-]*,"mfu":null,"memory":[0-9]*,"memory_peak":[0-9]*}' run/log.jsonl)" -eq 20 ] ||
    fail "steps without rates: $(sed -n 2p run/log.jsonl)"
tail -n 1 run/log.jsonl | grep -q '"kind":"result","after_step":20' || fail "no result: $(tail -n 1 run/log.jsonl)"
[ "$(losses run | awk '{ print $1 }' | tr '\n' ' ')" = "$(seq -s ' ' 1 20) " ] || fail "steps are not 1 to 20"
losses run >whole

# Back to step 14, with a line cut short by a crash: the steps after it are replaced.
rm -r run/checkpoints/step-00000020
echo -n '{"kind":"step","step":21,"lo' >>run/log.jsonl
must "${train[@]}" --resume auto --steps 20
cmp <(losses run) whole || fail "the resumed log differs"
[ "$(grep -c '"kind":"resume","after_step":14' run/log.jsonl)" -eq 1 ] || fail "the resume is not noted"
[ "$(grep -c '"kind":"result"' run/log.jsonl)" -eq 1 ] || fail "not one result"

[ "$(find run/tensorboard -name '*tfevents*' | wc -l)" -eq 2 ] || fail "not a file of events a start: $(ls run/tensorboard)"

# With a peak, utilisation is the share of it.
must "${train[@]}" --out peak --steps 3 --peak-tflops 2 --no-tensorboard
[ ! -e peak/tensorboard ] || fail "events that were not asked for"
sed -n 's/.*"device_tflops":\([0-9.e-]*\),"mfu":\([0-9.e-]*\),.*/\1 \2/p' peak/log.jsonl |
    awk '{ error = $1 / 2 - $2; if (error < 0) error = -error; if (!(error <= 1e-9 * $2)) exit 1 } END { exit NR != 3 }' ||
    fail "MFU is not the share of --peak-tflops: $(sed -n 2p peak/log.jsonl)"
