"""How tests have programs compiled: soon, since each is run a few times.

The kernels are then not what users run, but the programs are. It takes a third
of the compiler's time.
"""

# Of XLA: LLVM optimizes nothing, fusions are written as loops of their own in
# place of a module each that MLIR lowers, and a program is one module: cutting it
# for several cores takes longer where each of them has tests of its own.
QUICK = (
  '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false'
  ' --xla_cpu_parallel_codegen_split_count=1'
)
