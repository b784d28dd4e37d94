"""TRL's GRPOTrainer on the workload: its scores, its loss, its training loop.

Letters: B rows, L columns.
"""

from __future__ import annotations

import sys
import tempfile

import datasets
import numpy as np
import tokenizers
import torch
import transformers
import trl

from tests.benchmarks.speed import workload
from tests.benchmarks.speed.hugging import load
from tests.benchmarks.speed.link import marker, open_link, serve, Work
from tests.benchmarks.speed.workload import Job, read_job

PACKAGES = ('trl', 'torch', 'transformers')
STEPS = 10_000  # More than anybody asks for.


def _tokenizer(size: workload.Size) -> transformers.PreTrainedTokenizerFast:
  """Returns one whose words are the ids themselves."""
  words = {str(i): i for i in range(size.vocab)}
  words['<pad>'], words['<eos>'] = words.pop('0'), words.pop('1')
  model = tokenizers.models.WordLevel(words, unk_token='<pad>')
  raw = tokenizers.Tokenizer(model)
  raw.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=raw, pad_token='<pad>', eos_token='<eos>'
  )


def _trainer(job: Job, reward) -> trl.GRPOTrainer:
  """Returns a trainer with a reference model, in float32, without vLLM."""
  shape = job.shape
  config = trl.GRPOConfig(
    output_dir=tempfile.mkdtemp(),
    per_device_train_batch_size=shape.rows,
    num_generations=shape.rows // shape.problems,
    max_completion_length=shape.columns - shape.prompt,
    max_steps=STEPS,
    learning_rate=1e-5,
    weight_decay=0.01,
    beta=0.04,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    bf16=False,
    fp16=False,
    use_cpu=True,
    gradient_checkpointing=False,  # As in the others: memory is no concern.
    report_to=[],
    logging_steps=STEPS,
    save_strategy='no',
    disable_tqdm=True,
    dataloader_pin_memory=False,
    use_vllm=False,
    loss_type='grpo',
    shuffle_dataset=False,
    generation_kwargs={'eos_token_id': job.size.vocab + 1},  # Never drawn.
    optim='adamw_torch',
  )
  ids = workload.prompts(job.size, shape)
  answers = [str(workload.FIRST + i) for i in range(len(ids))]
  return trl.GRPOTrainer(
    model=load(job),
    reward_funcs=reward,
    args=config,
    train_dataset=datasets.Dataset.from_dict(
      {'prompt': workload.texts(ids), 'answer': answers}
    ),
    processing_class=_tokenizer(job.size),
  )


def update(job: Job) -> Work:
  """Returns an update by the trainer's own scores and loss.

  Its methods for both are private: there is no other way to give it rows.
  """
  shape = job.shape
  trainer = _trainer(job, lambda completions, **_: [0.0] * len(completions))
  model = trainer.model.train()
  optimizer = trainer.create_optimizer()
  trainer.current_gradient_accumulation_steps = 1
  ids = torch.from_numpy(workload.rows(job.size, shape)).long()
  behind = slice(shape.prompt, None)
  mask = torch.from_numpy(workload.turns(shape) > 0)[:, behind]
  advantage = np.random.default_rng(4).standard_normal(shape.rows)
  batch = {
    'prompt_ids': ids[:, : shape.prompt],
    'prompt_mask': torch.ones_like(ids[:, : shape.prompt]),
    'completion_ids': ids[:, behind],
    'completion_mask': torch.ones_like(ids[:, behind]),
    'tool_mask': mask.long(),
    'advantages': torch.from_numpy(advantage).float(),
    'num_items_in_batch': mask.sum(),
  }

  def scores():
    with torch.no_grad():
      return trainer._get_per_token_logps_and_entropies(
        trainer.ref_model,
        ids,
        torch.ones_like(ids),
        shape.columns - shape.prompt,
        shape.rows,
      )[0]

  def repeat():
    batch['ref_per_token_logps'] = scores()
    trainer.accelerator.backward(trainer._compute_loss(model, batch))
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

  return Work({'logp': scores()[mask].tolist()}, 1, repeat)


def iterate(job: Job) -> None:
  """Trains; a lap goes from one batch's grades to the next one's."""
  mark = marker(open_link(), {}, 1, PACKAGES)

  def reward(completions, answer, **_):
    mark()
    return workload.rewards(answer, completions)

  _trainer(job, reward).train()


if __name__ == '__main__':
  asked = read_job(sys.argv[1])
  if asked.work == 'iterate':
    iterate(asked)
  else:
    serve(update, PACKAGES)
