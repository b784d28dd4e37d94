"""How tests have programs compiled: soon, since each is run a few times.

The kernels are then not what users run, but the programs are. It takes a third
of the compiler's time.
"""

# Of XLA: LLVM optimizes nothing, and fusions are written as loops of their own
# in place of a module each that MLIR lowers.
QUICK = '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false'
