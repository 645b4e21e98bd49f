# One batch of text, seen again and again, is learnt by heart by both mixers.
source "$(dirname "$0")/common.sh"
mkdir one
echo -n "a covariance of values and keys corrects the mean of the values" >one/text.txt
for mixer in parallax softmax; do
    must "$parallax" train --data one --val-fraction 0 --mixer "$mixer" --out "$mixer" --hidden-size 64 \
        --intermediate-size 128 --layers 2 --heads 2 --kv-heads 1 --head-dim 32 --context 64 --batch 1 --threads 1 \
        --steps 150 --checkpoint-every 0 --lr 0.02 --weight-decay 0
    losses "$mixer" | tail -n 1 | awk '{ exit !($2 < 0.02) }' ||
        fail "$mixer: the loss of one batch after 150 steps is $(losses "$mixer" | tail -n 1)"
    "$parallax" sample "$mixer" "a covariance" --temperature 0 --threads 1 --echo >text
    grep -q "corrects the mean of the values" text || fail "$mixer: wrote $(cat text)"
done
