"""transformers' generate() and a plain torch update, and the checkpoint of all.

    python -m tests.benchmarks.speed.hugging checkpoint JOB

Letters: B rows, L columns, M tokens of an attempt.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
import transformers

from tests.benchmarks.speed import workload
from tests.benchmarks.speed.link import serve, Work
from tests.benchmarks.speed.workload import Job, read_job


def write_checkpoint(job: Job) -> None:
  """Writes random weights of the job's size into its folder.

  Products keep the size of what goes through them, so that tokens are neither
  all alike nor certain; padding is never the likeliest.
  """
  size = job.size
  config = transformers.Qwen2Config(
    vocab_size=size.vocab,
    hidden_size=size.width,
    intermediate_size=size.mlp,
    num_hidden_layers=size.layers,
    num_attention_heads=size.heads,
    num_key_value_heads=size.kv_heads,
    head_dim=size.head_dim,
    max_position_embeddings=4096,
    rope_theta=10_000.0,
    tie_word_embeddings=True,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=workload.PAD,
  )
  model = transformers.Qwen2ForCausalLM(config)
  draw = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      if parameter.ndim == 2:
        parameter.normal_(0, parameter.shape[1] ** -0.5, generator=draw)
      elif name.endswith('bias'):
        parameter.normal_(0, 0.1, generator=draw)
    model.get_input_embeddings().weight[workload.PAD] = 0
  model.save_pretrained(job.folder)


def load(job: Job) -> transformers.PreTrainedModel:
  """Returns the checkpoint's model."""
  transformers.logging.set_verbosity_error()
  transformers.logging.disable_progress_bar()
  torch.set_num_threads(job.cores)
  torch.manual_seed(0)
  return transformers.AutoModelForCausalLM.from_pretrained(
    job.folder, dtype=torch.float32, attn_implementation='sdpa'
  ).eval()


def _ids(x: np.ndarray) -> torch.Tensor:
  return torch.from_numpy(x).long()


def _prompts(job: Job) -> torch.Tensor:
  """Returns int64[B, prompt], a problem's prompt for each of its samples."""
  each = job.shape.rows // job.shape.problems
  prompts = workload.prompts(job.size, job.shape)
  return _ids(np.repeat(prompts, each, axis=0))


def _generate(job: Job, model, ids, tokens: int, cache, greedy: bool):
  """Returns what generate() returns: rows with an attempt, and their cache."""
  sampling = {'temperature': 1.0, 'top_k': 0, 'top_p': 1.0}
  if greedy:
    sampling = dict.fromkeys(sampling)
  return model.generate(
    input_ids=ids,
    attention_mask=torch.ones_like(ids),
    past_key_values=cache,
    do_sample=not greedy,
    max_new_tokens=tokens,
    eos_token_id=job.size.vocab + 1,  # Never drawn.
    pad_token_id=workload.PAD,
    use_cache=True,
    return_dict_in_generate=True,
    **sampling,
  )


@torch.inference_mode()
def _turns(job: Job, model, keep: bool, greedy: bool = False):
  """Returns the ids of each turn, int64[B, M].

  Args:
    job: to do.
    model: to sample from.
    keep: whether turn 2 goes on from turn 1's cache, or reads all anew.
    greedy: whether to take the likeliest token.
  """
  ids, cache, turns = _prompts(job), None, []
  between = _ids(workload.instruction(job.size, job.shape))
  for turn, tokens in enumerate(job.shape.attempts):
    if turn:
      ids = torch.cat([ids, between[None].expand(len(ids), -1)], 1)
    found = _generate(job, model, ids, tokens, cache, greedy)
    turns.append(found.sequences[:, ids.shape[1] :])
    ids, cache = found.sequences, found.past_key_values if keep else None
  return turns


def sample(job: Job) -> Work:
  """Returns the sampling of all turns."""
  model, keep = load(job), job.variant == 'cache kept'
  greedy = torch.cat(_turns(job, model, keep, greedy=True), 1)
  check = {'tokens': greedy.tolist()}
  return Work(check, 0, lambda: _turns(job, model, keep))


def _logp(job: Job, model, ids: torch.Tensor) -> torch.Tensor:
  """Returns float32[B, all M]; logits are made for the attempts alone."""
  spans = job.shape.spans
  columns = torch.cat([torch.arange(*span) for span in spans])
  logits = model(ids, logits_to_keep=columns - 1).logits
  chosen = logits.gather(-1, ids[:, columns, None]).squeeze(-1)
  return chosen - torch.logsumexp(logits, -1)


def _learner(job: Job, policy):
  """Returns a function that updates the policy from rows and advantages."""
  reference = load(job).requires_grad_(False)
  policy.train()
  optimizer = torch.optim.AdamW(
    policy.parameters(), lr=1e-5, weight_decay=0.01, fused=True
  )

  def learn(ids, advantage):
    with torch.no_grad():
      other = _logp(job, reference, ids)
    mine = _logp(job, policy, ids)
    kl = torch.exp(other - mine) - (other - mine) - 1
    loss = (0.04 * kl - advantage[:, None] * mine).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

  return learn


def update(job: Job) -> Work:
  """Returns an update written by hand over the models of transformers."""
  policy = load(job)
  ids = _ids(workload.rows(job.size, job.shape))
  advantage = np.random.default_rng(4).standard_normal(len(ids))
  advantage = torch.from_numpy(advantage).float()
  with torch.no_grad():
    logp = _logp(job, policy, ids)
  learn = _learner(job, policy)
  learn(ids, advantage)
  check = {'logp': logp.flatten().tolist()}
  return Work(check, 0, lambda: learn(ids, advantage))


def iterate(job: Job) -> Work:
  """Returns an iteration: generate(), a text's test, the update above."""
  model = load(job)
  learn = _learner(job, model)
  answers = [str(workload.FIRST + i) for i in range(job.shape.rows)]
  each = job.shape.rows // job.shape.problems

  def repeat():
    (attempt,) = _turns(job, model, keep=False)
    reward = workload.rewards(answers, workload.texts(attempt))
    group = torch.tensor(reward).reshape(-1, each)
    advantage = (group - group.mean(1, keepdim=True)).flatten()
    # A copy, for what inference made cannot be learned from.
    learn(torch.cat([_prompts(job), attempt.clone()], 1), advantage)

  return Work({}, 1, repeat)


def make(job: Job) -> Work:
  return {'sample': sample, 'update': update, 'iterate': iterate}[job.work](job)


if __name__ == '__main__':
  if sys.argv[1] == 'checkpoint':
    write_checkpoint(read_job(sys.argv[2]))
  else:
    serve(make, ('torch', 'transformers'))
