"""Public models have the sizes that their pages say."""

import math

import jax
import pytest
from planned import settings

from score_jax import (
  programs,
)
from score_jax.config import ConfigError
from score_jax.models import families, public

# What the hub's pages of the checkpoints say of their safetensors.
PUBLISHED = {
  'gemma2_2b': 2_614_341_888,
  'gemma2_9b': 9_241_705_984,
  'gemma2_27b': 27_227_128_320,
  'gemma3_1b': 999_885_952,
  'llama3_1b': 1_235_814_400,
  'llama3_3b': 3_212_749_824,
  'llama3_8b': 8_030_261_248,
  'llama3_70b': 70_553_706_496,
  'qwen25_0.5b': 494_032_768,
  'qwen25_1.5b': 1_543_714_304,
  'qwen25_3b': 3_085_938_688,
  'qwen25_7b': 7_615_616_512,
  'qwen25_14b': 14_770_033_664,
  'qwen25_32b': 32_763_876_352,
  'qwen25_72b': 72_706_203_648,
  'qwen3_0.6b': 596_049_920,
  'qwen3_8b': 8_190_735_360,
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_public_model_has_the_parameters_that_its_page_says(name):
  base = programs.setup(
    settings(),
    families.model_config(public.get(name)),
    programs.abstract_mesh((1, 1, 1)),
    4,
  ).base
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(base))
  assert count == PUBLISHED[name]


def test_every_public_model_is_covered_and_found_by_the_start_of_a_preset():
  for name, numbers in public.CONFIGS.items():
    families.model_config(numbers)
    assert public.of_preset(f'{name}_math') is numbers
    assert public.of_preset(name) is numbers
  assert public.of_preset('math') is None
  assert public.of_preset('gemma2_2bx') is None


def test_a_misspelt_model_is_refused_with_the_nearest():
  with pytest.raises(ConfigError, match=r'did you mean gemma2_2b\?'):
    public.get('gemma2_2bb')
