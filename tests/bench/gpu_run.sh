#!/usr/bin/env bash
# Measures everything on a machine with one GPU. See --help.

set -euo pipefail

readonly kTotalSeconds=575  # for a limit of ten minutes on the whole command

# Stages in order of value: name, its most seconds, and in dry mode.
readonly kStages='
identity          20  20
ceilings          40  20
tests            120 120
rows              60  30
attention         40  30
train_124m        60  60
train_1.3b        70  30
train_7b          80  30
restart           60  60
products          60  30
torch_kernels    120  60
torch_train_124m  90  60
torch_train_1.3b  90  30
sweep             60  30
optimizer         30  30
ranks             60  60
profile           60  10
'
readonly kSanitizerStages='
identity          20  20
memcheck         280  20
racecheck        280  20
'

usage() {
  cat <<'TEXT'
usage: tests/bench/gpu_run.sh [--dry] [--sanitize] [--build BUILD] [--only STAGE]... OUT

Runs from an unpacked archive of gpu_bundle.sh, or with the programs of build folder BUILD. Builds
nothing, needs no network, and takes less than ten minutes: stages in order of value, each under a
time limit of its own; one that fails or takes too long does not stop the others, and those for
which no time is left are skipped. Compiles nothing but what PyTorch compiles.

  identity, ceilings   the machine; rates of a copy and of a large product
  tests                the tests that use a GPU
  rows, attention, products, optimizer, sweep    kernels next to their floors (kernel_bench)
  train_*              tokens per second, utilisation, time by op, memory (train_bench)
  restart              a run that was killed and goes on has the bits of one that was not
  ranks                two ranks on one GPU, by MPI and by NCCL, learn what one rank does
  torch_*              the same kernels and training steps by PyTorch, where python3 has it
  profile              counters of the three kernels farthest from their floors, where ncu is found

OUT gets results.jsonl, summary.txt, log.txt, and profile.csv. The summary with what was predicted,
measured and their ratio is printed last. Exits with 0 if no stage failed, 1 otherwise.

options
  --sanitize      instead of all this, the tests under compute-sanitizer: memcheck and racecheck
  --dry           tiny sizes on the CPU: proves the script and the form of its results
  --build BUILD   use the programs of a build folder
  --only STAGE    only this stage; may be repeated
  --help          print this
TEXT
}

here=$(cd -- "$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")" && pwd)
dry=0 sanitize=0 build='' only=() out=''
while (($# > 0)); do
  case $1 in
    --help) usage && exit ;;
    --dry) dry=1 ;;
    --sanitize) sanitize=1 ;;
    --build) build=$(realpath -- "${2:?--build needs a folder}") && shift ;;
    --only) only+=("${2:?--only needs a stage}") && shift ;;
    -*) echo "gpu_run.sh: unknown option $1; see --help" >&2 && exit 2 ;;
    *) out=$1 ;;
  esac
  shift
done
if [[ -z $out ]]; then usage >&2 && exit 2; fi
mkdir -p -- "$out"
out=$(realpath -- "$out")
readonly results=$out/results.jsonl log=$out/log.txt

microseconds() { echo "${EPOCHREALTIME//[!0-9]/}"; }

# A stage that was stopped in the middle of a line must not spoil the next one.
end_line() {
  if [[ -s $results && -n $(tail -c 1 "$results") ]]; then echo >>"$results"; fi
}

report() {  # STAGE EXIT MILLISECONDS DETAIL
  local seconds detail=${4//[\"\\]/}
  printf -v seconds '%d.%03d' $(($3 / 1000)) $(($3 % 1000))
  printf '%-18s exit %d after %s s%s\n' "$1" "$2" "$seconds" "${detail:+: $detail}"
  printf '{"stage": "status", "name": "%s", "exit": %d, "seconds": %s, "detail": "%s"}\n' \
    "$1" "$2" "$seconds" "$detail" >>"$results"
}

run_stage() {  # STAGE SECONDS
  local begin status=0 detail=''
  begin=$(microseconds)
  printf '\n== %s\n' "$1" >>"$log"
  timeout --kill-after=5 "$2" "$here/gpu_stage" "$1" "$out" >>"$log" 2>&1 </dev/null || status=$?
  end_line
  if ((status == 77)); then
    detail=$(tail -n 1 "$log")
  elif ((status != 0)); then
    failures=$((failures + 1))
  fi
  report "$1" "$status" $((($(microseconds) - begin) / 1000)) "${detail#skipped: }"
}

run_all() {  # STAGES
  local stage seconds dry_seconds left table=$1
  while read -r stage seconds dry_seconds; do
    if [[ -z $stage || (${#only[@]} -gt 0 && " ${only[*]} " != *" $stage "*) ]]; then continue; fi
    if ((dry)); then seconds=$dry_seconds; fi
    left=$((kTotalSeconds - SECONDS))
    if ((left < 10)); then
      report "$stage" 77 0 "no time was left"
    else
      run_stage "$stage" $((seconds < left ? seconds : left))
    fi
  done <<<"$table"
}

summarize() {
  local program=("$here/../../run" bench_summary)
  if [[ -n $build ]]; then program=("$build/tests/bench/bench_summary"); fi
  "${program[@]}" "$results" "$here/predictions.json" >"$out/summary.txt"
}

threads=$(nproc)
if ((dry)); then threads=1; fi
# Workers that wait should not keep cores busy.
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
export PANTHERA_BENCH_DRY=$dry PANTHERA_BENCH_BUILD=$build

stages=$kStages
if ((sanitize)); then stages=$kSanitizerStages; fi
for stage in "${only[@]}"; do
  if [[ $stages != *$'\n'"$stage "* ]]; then
    echo "gpu_run.sh: there is no stage $stage; see --help" >&2
    exit 2
  fi
done
rm -f "$out/profile.csv"
: >"$results"
: >"$log"
failures=0
run_all "$stages"
summarize || failures=$((failures + 1))
cat "$out/summary.txt"
((failures == 0))
