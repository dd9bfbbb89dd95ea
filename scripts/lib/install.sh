# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# For sourcing: installs Debian packages.

# require_packages PACKAGE...: installs those that are missing, as root or through sudo, and says which.
require_packages() {
  local missing=() as_root=() package
  if ! command -v apt-get >/dev/null; then
    echo "This is not Debian: nothing is installed. Needed are the counterparts of: $*"
    return 0
  fi
  for package in "$@"; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
      missing+=("$package")
  done
  if ((${#missing[@]} == 0)); then
    return 0
  fi
  if ((EUID != 0)); then
    as_root=(sudo)
    if ! command -v sudo >/dev/null; then
      echo "These packages are missing, and installing them takes root or sudo: ${missing[*]}" >&2
      return 1
    fi
  fi
  echo "Installing ${missing[*]}"
  # Fresh machines have no package lists; one update is enough for all that this run installs.
  if [[ -z ${hmoe_package_lists_updated:-} ]]; then
    "${as_root[@]}" apt-get update --quiet --quiet ||
      echo "The package lists could not all be updated; going on with those at hand." >&2
    export hmoe_package_lists_updated=1
  fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet \
    --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}" </dev/null
}

# Installs what configuring and building a preset of g++ takes.
require_build_packages() {
  require_packages g++ cmake make ninja-build python3 libeigen3-dev libxsimd-dev libtbb-dev doctest-dev libbenchmark-dev \
    libcli11-dev nlohmann-json3-dev libsentencepiece-dev sentencepiece libopenmpi-dev openmpi-bin libmpich-dev mpich
}
