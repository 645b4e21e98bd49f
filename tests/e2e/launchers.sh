# The launchers of clusters, where they are installed: mpirun of Open MPI and of MPICH, and srun where a Slurm runs. Each
# starts two ranks without a wrapper, which learn what one rank with twice the batch learns; a rank that is killed ends
# the run, which goes on from its last checkpoint with another number of ranks.
source "$(dirname "$0")/common.sh"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
    PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PARALLAX_MEETING_SECONDS=30
launchers=()
for name in mpirun.openmpi mpirun.mpich; do
    if command -v "$name" >/dev/null; then launchers+=("$name -n 2"); fi
done
# Elsewhere than on Debian there is one mpirun.
if [ ${#launchers[@]} -eq 0 ] && command -v mpirun >/dev/null; then launchers+=("mpirun -n 2"); fi
# Its nodes must see this folder.
if command -v srun >/dev/null && timeout 10 srun --immediate=5 -N 1 -n 1 test -d "$work" 2>/dev/null; then
    launchers+=("srun -N 1 -n 2")
fi
if [ ${#launchers[@]} -eq 0 ]; then
    echo "skipped: neither mpirun nor a running Slurm is here"
    exit 77
fi

make_text text 30
train=("$parallax" train --data text "${tiny[@]}" --device cpu --checkpoint-every 10)
lost='^parallax: rank 0: rank 1 has ended before rank 0 was done with it: '
lost+='(its connection was closed|Connection reset by peer|Broken pipe); '
lost+='the last good checkpoint is dead/checkpoints/step-[0-9]{8}$'
must "${train[@]}" --steps 20 --out one --batch 6

for launcher in "${launchers[@]}"; do
    read -ra launch <<<"$launcher"
    rm -rf two dead
    must "${launch[@]}" "${train[@]}" --steps 20 --out two --batch 3
    same_losses one two 1e-6
    must "${train[@]}" --steps 30 --out two --resume auto --batch 6

    "${launch[@]}" "${train[@]}" --steps 1000000 --keep 2 --out dead --batch 3 >dead.out 2>dead.err </dev/null &
    starter=$!
    for _ in $(seq 500); do
        [ -s dead/log.jsonl ] && [ "$(wc -l <dead/log.jsonl)" -gt 25 ] && break
        sleep 0.02
    done
    for folder in /proc/[0-9]*; do
        [ "$(readlink "$folder/exe")" = "$parallax" ] || continue
        [ "$(readlink "$folder/cwd")" = "$work" ] || continue
        variables=$(tr '\0' '\n' <"$folder/environ")
        if grep -Eqx '(OMPI_COMM_WORLD_RANK|PMI_RANK|SLURM_PROCID)=1' <<<"$variables"; then kill -9 "${folder#/proc/}"; fi
    done 2>/dev/null
    begin=$SECONDS
    ! wait "$starter" || fail "$launcher succeeds though a rank was killed"
    [ $((SECONDS - begin)) -lt 15 ] || fail "$launcher took $((SECONDS - begin)) seconds to end"
    # Whoever is first: the launcher, or rank 0, whose exit code Open MPI then reports instead of the signal.
    grep -Eq -e 'signal 9|Killed' -e "$lost" dead.out dead.err ||
        fail "nobody tells of the death under $launcher: $(cat dead.err)"
    must "${launch[@]}" "${train[@]}" --out dead --resume auto --steps 1 --batch 3
    echo "$launcher: passed"
done
