#!/usr/bin/env bash
# Packs what gpu_run.sh needs into one archive. See --help.

set -euo pipefail

readonly kMostBytes=$((60 << 20))
readonly kName=panthera_gpu
# Libraries of NVIDIA that are hundreds of megabytes large: found on the machine that runs the
# bundle; where they are missing, stand-ins let everything start that uses no GPU.
readonly kFoundThere='^lib(cublasLt|nccl)\.so'
# What plugins of Open MPI need that are for networks, files and one-sided messages.
readonly kLargePlugins='missing|lib(uc[pts]|oshmem|psm|infinipath|fabric|ibverbs|mca_common_(ompio|ucx))'

usage() {
  cat <<'TEXT'
usage: tests/bench/gpu_bundle.sh BUILD OUT.tar.xz

Packs programs of build folder BUILD (preset cuda; target gpu_programs, which is brought up to date)
into an archive that runs on a machine that has nothing but bash, coreutils, and NVIDIA's driver,
once tar and xz have unpacked it:

  ./run PROGRAM ARGUMENT...          a program of bin/ or tests/ with the bundle's libraries
  ./run mpirun -np 2 ./run panthera train ...
  tests/bench/gpu_run.sh OUT         all measurements

With the programs come the C library and its loader, all shared libraries, Open MPI's plugins, token
files, and the scripts of tests/bench. NVIDIA's libraries cublasLt and NCCL are looked for in
/usr/local/cuda*, PANTHERA_CUDA_LIBRARIES (folders, separated by colons) and beside python3's
packages. Fails if the archive is larger than 60 MiB.
TEXT
}

fail() {
  echo "gpu_bundle.sh: $*" >&2
  exit 1
}

# Shared libraries that programs and plugins need, by path, but not those that are found there.
libraries_of() {  # FILE...
  ldd "$@" 2>/dev/null | awk -v found_there="$kFoundThere" '
    $2 == "=>" && $3 == "not" { print "missing " $1; next }
    $2 == "=>" && $1 !~ found_there { print $3 }' | LC_ALL=C sort -u
}

# A library that has the symbols of another that programs ask for; each returns 1, "not initialised"
# to cublasLt, "unhandled error" to NCCL.
make_stand_in() {  # SONAME OUT PROGRAM...
  local name=$1 out=$2 prefix symbols
  prefix=${name#lib}
  mapfile -t symbols < <(nm -D --undefined-only "${@:3}" |
    sed -nE "s/^ *U (${prefix%%.*}[A-Za-z0-9]*).*/\\1/p" | LC_ALL=C sort -u)
  printf 'int %s(void) { return 1; }\n' "${symbols[@]}" >"$work/stand_in.c"
  # Programs ask for versioned symbols, if the library has versions.
  echo "$name { global: *; };" >"$work/stand_in.map"
  cc -shared -fPIC -O1 -Wl,-soname,"$name" -Wl,--version-script,"$work/stand_in.map" \
    -o "$out" "$work/stand_in.c"
}

copy_programs() {
  local kind path
  while read -r kind path; do
    case $kind in
      program) install -s -m 755 "$path" "$bundle/bin/" ;;
      test)
        install -s -m 755 "$path" "$bundle/tests/"
        basename "$path" >>"$bundle/tests/list"
        ;;
    esac
  done <"$build/gpu_programs.txt"
  install -s -m 755 "$(realpath "$(command -v mpirun)")" "$bundle/bin/mpirun"
}

# Open MPI's plugins for one host, with what they print and are set to.
copy_mpi() {
  local plugins share settings plugin
  plugins=$(ompi_info --path pkglibdir --parsable | cut -d : -f 3)
  share=$(ompi_info --path pkgdatadir --parsable | cut -d : -f 3)
  settings=$(ompi_info --path sysconfdir --parsable | cut -d : -f 3)
  for plugin in "$plugins"/mca_*.so; do
    if ! libraries_of "$plugin" |
      grep -qE "$kLargePlugins"; then
      install -m 755 "$plugin" "$bundle/lib/openmpi/"
    fi
  done
  cp -r "$share/." "$bundle/share/openmpi/"
  cp -r "$settings/." "$bundle/etc/openmpi/"
}

copy_libraries() {
  local files=("$bundle"/bin/* "$bundle"/lib/openmpi/*) library name
  mapfile -t -O "${#files[@]}" files < <(find "$bundle/tests" -type f -perm -u+x)
  while read -r library; do
    if [[ $library == missing* ]]; then fail "a program needs a library that is ${library}"; fi
    install -m 755 "$library" "$bundle/lib/"
  done < <(libraries_of "${files[@]}")
  install -m 755 "$(ldd "$bundle/bin/panthera" | awk '/ld-linux/ { print $1 }')" \
    "$bundle/lib/loader"
  while read -r name; do
    make_stand_in "$name" "$bundle/lib/stand_in/$name" "${files[@]}"
  done < <(objdump -p "${files[@]}" 2>/dev/null | awk -v found_there="$kFoundThere" '
    $1 == "NEEDED" && $2 ~ found_there { print $2 }' | LC_ALL=C sort -u)
}

copy_texts() {
  local commit
  cp -r configs "$bundle/"
  mkdir -p "$bundle/tests/bench" "$bundle/data"
  cp tests/bench/{gpu_run.sh,gpu_stage,predictions.json,torch_kernels.py,torch_train.py} \
    "$bundle/tests/bench/"
  cp tests/bench/gpu_bundle_run "$bundle/run"
  commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
  if [[ -n $(git status --porcelain 2>/dev/null) ]]; then commit+=" with changes"; fi
  echo "$commit" >"$bundle/commit"
  # Our own texts, as bytes: a few hundred thousand tokens to train on.
  find . -maxdepth 3 -name '*.md' -not -path './build/*' -print0 | LC_ALL=C sort -z |
    xargs -0 cat >"$work/corpus.txt"
  "$build/launcher/panthera" tokenize "$work/corpus.txt" --tokenizer bytes \
    --output "$bundle/data/train" >/dev/null
}

case ${1-} in
  --help) usage && exit ;;
  '' | -*) usage >&2 && exit 2 ;;
esac
if (($# != 2)); then usage >&2 && exit 2; fi
root=$(cd -- "$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")/../.." && pwd)
build=$(realpath -- "$1")
mkdir -p -- "$(dirname -- "$2")"
out=$(realpath -- "$2")
cd -- "$root"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$work/$kName

cmake "$build" >"$work/configure.log" 2>&1 || { cat "$work/configure.log" >&2 && exit 1; }
cmake --build "$build" --target gpu_programs >"$work/build.log" 2>&1 ||
  { tail -n 40 "$work/build.log" >&2 && exit 1; }
mkdir -p "$bundle"/{bin,tests,lib/openmpi,lib/stand_in,share/openmpi,etc/openmpi}
copy_programs
copy_mpi
copy_libraries
copy_texts
# Reproducible: the same contents give the same archive. Programs share most of their kernels, which
# are far apart in the archive: a dictionary that reaches from one to the next makes it a third.
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -c "$kName" |
  xz --threads=1 --lzma2=preset=2,dict=128MiB >"$out"

bytes=$(stat -c %s "$out")
echo "$out: $((bytes >> 20)) MiB, $(find "$bundle" -type f | wc -l) files," \
  "$(wc -l <"$bundle/tests/list") tests"
((bytes <= kMostBytes)) || fail "the archive has $bytes bytes, more than $kMostBytes"
