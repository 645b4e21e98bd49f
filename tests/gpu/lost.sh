# Ranks on GPUs one of which dies, where no launcher ends the others: they end by themselves, name their loss and the last
# checkpoint, and that one is sound. usage: lost.sh PROGRAM
source "$(dirname "$0")/common.sh"
make_text text 2000

for graphs in "" no-; do
    start "${graphs}graphs" 1 2 "${large[@]}" "--${graphs}cuda-graphs"
    lose "${graphs}graphs" 1
done
start other 1 2 "${large[@]}"
lose other 0
# Short steps that are seldom read: the rank is mostly with the hub, which tells it at once.
start hub 1 2 --log-every 20
lose hub 1
if [ "$gpus" -ge 4 ]; then
    start four 1 4 "${large[@]}"
    lose four 2
fi
