# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# For sourcing: programs on several ranks.

# on_ranks N COMMAND...: by mpirun, as root, too, with more ranks than cores, and in containers. MPICH ignores the
# variables, which are Open MPI's.
on_ranks() {
  local ranks=$1
  shift
  env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
    OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_plm=isolated OMPI_MCA_btl=self,vader \
    OMPI_MCA_btl_vader_single_copy_mechanism="${OMPI_MCA_btl_vader_single_copy_mechanism:-none}" \
    mpirun -np "$ranks" "$@"
}
