# shellcheck shell=bash
# CUDA's toolkit out of the Python package index, for a machine with an NVIDIA driver and nobody who may install packages.
# Sourced by build_llama_cpp.sh, whose `say` and `die` it uses.

# One release of the toolkit: compiler, headers and libraries have to match. CUDA 13 needs a driver of release 580 or
# newer, and a card of compute capability 7.5 or newer.
readonly CUDA_WHEELS=(nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96
  nvidia-cuda-cccl==13.0.85 nvidia-cublas==13.0.2.14)
readonly CUDA_WHEELS_RELEASE=13.0

install_cuda_wheels() { # folder, Python with pip, log
  local toolkit=$1 python=$2 log=$3 new=$1.new library
  [ ! -x "$toolkit/bin/nvcc" ] || return 0
  say "fetching CUDA $CUDA_WHEELS_RELEASE from the Python package index (525 MB)"
  rm -rf "$new" "$new.site"
  "$python" -m pip install --quiet --no-deps --target "$new.site" "${CUDA_WHEELS[@]}" >>"$log" 2>&1 ||
    die "CUDA could not be fetched from the Python package index" "see the end of $log"
  mv "$new.site/nvidia/cu13" "$new"
  rm -rf "$new.site"
  # The wheels are made for running: nvcc and cmake look for lib64, and for libraries without a version in their name.
  ln -s lib "$new/lib64"
  for library in "$new"/lib/*.so.*; do ln -sf "${library##*/}" "${library%.so.*}.so"; done
  make_driver_stub "$new" 2>>"$log" || die "the stub of NVIDIA's driver could not be compiled" "see the end of $log"
  mv "$new" "$toolkit"
}

# What NVIDIA's own toolkit has in lib/stubs: the driver's functions by name, for the linker. The real libcuda.so.1 comes
# with the driver; this file is named so that the loader never takes it.
make_driver_stub() { # toolkit
  mkdir -p "$1/lib/stubs"
  grep -oE '\bcu[A-Z][A-Za-z0-9_]*\(' "$1/include/cuda.h" | sort -u |
    sed 's/($/(void) { return 100; } \/* CUDA_ERROR_NO_DEVICE *\//; s/^/int /' >"$1/lib/stubs/libcuda.c"
  "${CC:-cc}" -shared -fPIC -w -Wl,-soname,libcuda.so.1 -o "$1/lib/stubs/libcuda.so" "$1/lib/stubs/libcuda.c"
}
