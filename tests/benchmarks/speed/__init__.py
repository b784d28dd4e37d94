"""How fast sampler, update and iteration are, beside those of other libraries.

    python -m tests.benchmarks.speed --help

`workload` says what is computed and counts its operations, `link` measures a
repeat in a process of its own, `ours`, `hugging`, `trl_peer` and `tunix_peer`
compute it, `contest` asks them in turn, `machine` pins all to its cores,
`table` shows the figures.
"""
