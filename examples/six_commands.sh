#!/usr/bin/env bash
# What a PRM is made of and used for, in six commands with files between them, on the embedded world:
#
#     bash examples/six_commands.sh [FOLDER]
#
# The policy samples chains of the training questions and completes their prefixes for labels; a PRM is trained on these
# files, scores the candidates of the test questions, and one of each is selected. Every command can be stopped and
# started again: it goes on where it was. LIMIT=40 takes so few chains of everything, TRAIN="inner.updates=200" is for
# the third command.
set -euo pipefail
out=${1:-runs/six_commands}
policy="policy.max_new_tokens=40 policy.batch_size=128 ${LIMIT:+data.limit=$LIMIT}"

# 1. sample: training chains, the meta set's chains (told right or wrong by their answers), the test candidates.
dreamprm sample data.path=world/train num=1 out="$out/chains.jsonl" $policy
dreamprm sample data.path=world/meta num=4 out="$out/meta.jsonl" $policy
dreamprm sample data.path=world/test num=8 out="$out/candidates.jsonl" $policy
# 2. label: where the first error of a chain is, by eight completions of each step that is looked at.
dreamprm label data.path="$out/chains.jsonl" method=binary num=8 out="$out/labelled.jsonl" data.limit=1000 $policy
# 3. train
dreamprm train data=files data.path="$out/labelled.jsonl" meta=files meta.path="$out/meta.jsonl" \
    name=six_commands run_dir="$out/run" ${TRAIN:-}
# 4. score, 5. select, 6. evaluate
dreamprm score prm="$out/run/prm" data.path="$out/candidates.jsonl" out="$out/scores.jsonl"
dreamprm select scores="$out/scores.jsonl" out="$out/selection.jsonl"
dreamprm evaluate scores="$out/scores.jsonl" out="$out/results.json"
