#!/usr/bin/env bash
# check_resume.sh <folder> <epochs> <command>...: a job over ranks that is killed after an epoch and resumed ends with the weights of
# one that was not interrupted, bit for bit. The command starts a program with the options of train_classifier.
set -euo pipefail
folder=$1 epochs=$2
shift 2
rm -rf "$folder"
mkdir -p "$folder"
# The launcher's arguments come before the program, which is the last one: it is started by a shell that notes its process.
program=${*: -1}
launch=("${@:1:$#-1}")
arguments=(--batch 62 --epochs "$epochs" --quiet)

"${launch[@]}" "$program" "${arguments[@]}" --save-weights "$folder/whole"

# shellcheck disable=SC2016
"${launch[@]}" sh -c 'echo $$ >> "$0"; exec "$@"' "$folder/ranks" "$program" "${arguments[@]}" \
  --checkpoints "$folder/run" > "$folder/output" 2>&1 &
job=$!
trap 'kill "$job" 2> /dev/null || true' EXIT  # the launcher then ends its ranks
for ((turn = 0; turn < 3000; ++turn)); do
  [[ -e $folder/run-0002.params ]] && break
  kill -0 "$job" 2> /dev/null || break
  sleep 0.01
done
kill -KILL "$(tail -n 1 "$folder/ranks")" || { echo "the job ended before it could be killed"; exit 1; }
if wait "$job"; then
  trap - EXIT
  echo "the job ended well, although a rank was killed"
  exit 1
fi
trap - EXIT
last=$(printf '%s/run-%04d.params' "$folder" "$epochs")
[[ ! -e $last ]] || { echo "the job was killed after its last epoch"; exit 1; }

"${launch[@]}" "$program" "${arguments[@]}" --checkpoints "$folder/run" --resume --save-weights "$folder/resumed"
[[ -s $folder/whole ]]
cmp "$folder/whole" "$folder/resumed"
