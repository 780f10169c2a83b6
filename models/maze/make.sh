#!/usr/bin/env bash
# Makes models/maze.gguf again, from nothing but maze.ts: about 14 minutes on one H100, then a score on 1,024 mazes.
# Needs Node.js with this repository's packages, and Python with torch (CUDA), numpy and gguf.
# A folder of an earlier run is gone on from.   usage: bash models/maze/make.sh [folder] [seconds]
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-build/maze} seconds=${2:-830}
node_modules/.bin/esbuild models/maze/data.ts --bundle --platform=node --format=esm --outfile=build/maze-data.mjs --log-level=error
generator="node build/maze-data.mjs"
python3 models/maze/train.py --folder "$folder" --seconds "$seconds" --generator "$generator"
python3 models/maze/export.py "$folder" models/maze.gguf --weights "$folder/exported.pt" --generator "$generator"
python3 models/maze/score.py "$folder/exported.pt" --generator "$generator"
