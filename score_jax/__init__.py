"""SCoRe: training language models to correct themselves, in JAX."""
