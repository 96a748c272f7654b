"""A PRM as the reward of TRL's GRPO: `python examples/grpo_reward.py POLICY PRM [--updates 50]`.

POLICY: a causal language model with a chat template. PRM: the folder prm/ of a run, or a server's address.
"""

import argparse
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from dreamprm.integrations.reward import as_reward


def main(words: list[str] | None = None) -> GRPOTrainer:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("policy")
    parser.add_argument("prm")
    parser.add_argument("--updates", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--out", default="runs/grpo")
    options = parser.parse_args(words)
    questions = [f"What is {a} + {b}?" for a in range(1, 9) for b in range(1, 9)]
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": question}]} for question in questions])
    sizes = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": options.tokens}
    settings = GRPOConfig(
        options.out,
        max_steps=options.updates,
        logging_steps=1,
        save_strategy="no",
        bf16=torch.cuda.is_available(),
        **sizes,
    )
    reward: Any = as_reward(options.prm)  # takes any columns, which TRL's type does not say
    trainer = GRPOTrainer(options.policy, reward, settings, data)
    trainer.train()
    return trainer


if __name__ == "__main__":
    main()
