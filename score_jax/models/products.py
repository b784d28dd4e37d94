"""Which library multiplies on a CPU where whole rows are read?

XLA's compiler takes YNNPACK's products. It has oneDNN's as well, which make
more of AVX-512 where both factors are large, as in an update; where one of them
has a few rows, as in a step of decoding, YNNPACK's are faster. So each program
says which it wants (docs/performance.md, "Products by another library").
"""

from __future__ import annotations

from score_jax.models.architecture import Execution

_ONEDNN = {
  'xla_cpu_use_onednn': True,
  # Each product by itself: fused with what is around it, some do not compile.
  'xla_cpu_experimental_onednn_fusion_type': (
    'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT'
  ),
}


def compiler_options(execution: Execution) -> dict[str, bool | str] | None:
  """Returns what `jax.jit` has to tell the compiler of a program that trains."""
  return dict(_ONEDNN) if execution.products == 'onednn' else None
