# shellcheck shell=bash
# What GPU is there, which compiler for it, and what to install where something is missing.
# Sourced by build_llama_cpp.sh; sets nothing, every function prints.

have() { command -v "$1" >/dev/null 2>&1; }

find_nvcc() {
  local toolkit=${CUDA_HOME:-/usr/local/cuda}
  if have nvcc; then command -v nvcc; elif [ -x "$toolkit/bin/nvcc" ]; then echo "$toolkit/bin/nvcc"; fi
}

nvidia_cards() { # name, compute capability, driver: one line a card
  local cards # its complaints come on stdout, too
  have nvidia-smi || return 0
  cards=$(nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv,noheader 2>/dev/null) || return 0
  printf '%s\n' "$cards"
}

readonly KFD=${MUSICFLAMINGO_KFD:-/sys/class/kfd/kfd/topology/nodes} # the kernel's list of AMD GPUs; tests have their own

amd_targets() { # gfx1201 and the like, one a line
  local properties version
  for properties in "$KFD"/*/properties; do
    [ -r "$properties" ] || continue
    version=$(awk '$1 == "gfx_target_version" { print $2 }' "$properties")
    case $version in
      '' | 0) ;; # a processor
      *) printf 'gfx%d%x%x\n' $((version / 10000)) $((version / 100 % 100)) $((version % 100)) ;;
    esac
  done | sort -u
}

vulkan_cards() { # names, one a line; not Mesa's software driver, which is a processor and slower than the backend for it
  have vulkaninfo || return 0
  vulkaninfo --summary 2>/dev/null | awk -F' = ' '/deviceType/ { cpu = $2 ~ /TYPE_CPU/ } /deviceName/ && !cpu { print $2 }'
}

# The backend whose GPU and compiler are both there.
detect_backend() {
  if [ "$(uname -s)" = Darwin ]; then
    echo metal
  elif [ -n "$(find_nvcc)" ] && [ -n "$(nvidia_cards)" ]; then
    echo cuda
  elif have hipconfig && [ -n "$(amd_targets)" ]; then
    echo hip
  elif have glslc && [ -n "$(vulkan_cards)" ]; then
    echo vulkan
  else
    echo cpu
  fi
}

# What the cards of a backend are called by its compiler; empty where the compiler finds out itself.
detect_targets() { # backend
  case $1 in
    cuda) nvidia_cards | awk -F', ' '{ gsub(/\./, "", $2); print $2 }' | sort -u | paste -sd ';' - ;;
    hip) amd_targets | paste -sd ';' - ;;
  esac
}

# One line for a person: the card, the driver, the compiler.
describe_backend() { # backend
  case $1 in
    cuda)
      nvidia_cards | awk -F', ' '{ print $1 " (compute " $2 ", driver " $3 ")" }' | paste -sd ',' -
      "$(find_nvcc)" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/nvcc \1/p'
      ;;
    hip)
      amd_targets | paste -sd ' ' -
      echo "HIP $(hipconfig --version 2>/dev/null || echo '?')"
      ;;
    vulkan)
      vulkan_cards | paste -sd ',' -
      # Not head, which ends early: the SIGPIPE of what writes to it would end the script.
      glslc --version 2>/dev/null | sed -n 1p
      ;;
    metal) xcrun --find metal 2>/dev/null || true ;;
  esac | paste -sd ' ' - | sed 's/^ *//;s/ *$//'
}

# A GPU that nothing can be built for yet: says what is missing. Empty where there is none.
missing_for_gpu() {
  if [ -n "$(nvidia_cards)" ] && [ -z "$(find_nvcc)" ]; then
    echo "an NVIDIA GPU is here, but not CUDA's compiler: $(install_line cuda), then: musicflamingo build --force"
  elif [ -n "$(amd_targets)" ] && ! have hipconfig; then
    echo "an AMD GPU ($(amd_targets | paste -sd ' ' -)) is here, but not ROCm's HIP: $(install_line hip), then: musicflamingo build --force"
  fi
}

package_manager() {
  local manager
  for manager in apt-get dnf pacman zypper apk brew; do
    if have "$manager"; then
      echo "$manager"
      return 0
    fi
  done
}

# The command that installs something on this distribution.
install_line() { # cmake | compiler | patch | python | cuda | hip | vulkan
  local manager packages
  manager=$(package_manager)
  case $manager:$1 in
    *:cmake | *:patch) packages=$1 ;;
    apt-get:compiler) packages=g++ ;;
    dnf:compiler | zypper:compiler) packages=gcc-c++ ;;
    pacman:compiler) packages=base-devel ;;
    apk:compiler) packages='build-base linux-headers' ;;
    brew:compiler) packages=llvm ;;
    apt-get:python) packages=python3-venv ;;
    pacman:python) packages=python-pip ;;
    *:python) packages=python3-pip ;;
    apt-get:cuda) packages=nvidia-cuda-toolkit ;;
    dnf:cuda) packages=cuda-toolkit ;;
    pacman:cuda) packages=cuda ;;
    apt-get:hip) packages='hipcc libhipblas-dev librocblas-dev' ;;
    dnf:hip) packages='rocm-hip-devel hipblas-devel rocblas-devel' ;;
    pacman:hip) packages=rocm-hip-sdk ;;
    apt-get:vulkan) packages='glslc libvulkan-dev spirv-headers vulkan-tools' ;;
    dnf:vulkan) packages='glslc vulkan-loader-devel spirv-headers-devel vulkan-tools' ;;
    pacman:vulkan) packages='shaderc vulkan-headers spirv-headers vulkan-tools' ;;
    zypper:vulkan) packages='shaderc vulkan-devel vulkan-tools' ;;
    brew:vulkan) packages='shaderc vulkan-loader vulkan-headers' ;;
    *:cuda) packages='' && echo "install NVIDIA's CUDA toolkit" ;;
    *:hip) packages='' && echo "install AMD's ROCm with its HIP SDK" ;;
    *) packages='' && echo "install $1" ;;
  esac
  case $manager:$packages in
    *:) ;;
    pacman:*) echo "sudo pacman -S $packages" ;;
    apk:*) echo "sudo apk add $packages" ;;
    brew:*) echo "brew install $packages" ;;
    :*) echo "install $packages" ;;
    *) echo "sudo $manager install $packages" ;;
  esac
}
